"""Small real files for the tests: PDFs, DOCX, bombs. Everything is made here, nothing is copied."""

from __future__ import annotations

import io
import zipfile
import zlib
from collections.abc import Sequence
from pathlib import Path

ENTITY_BOMB = (
    '<?xml version="1.0"?><!DOCTYPE article [<!ENTITY a "ha"><!ENTITY b "&a;&a;&a;&a;&a;&a;&a;&a;">'
    '<!ENTITY c "&b;&b;&b;&b;&b;&b;&b;&b;">]><article><body><p>&c;</p></body></article>'
)

JATS = """<?xml version="1.0" encoding="utf-8"?>
<!DOCTYPE article PUBLIC "-//NLM//DTD JATS (Z39.96) v1.1//EN" "JATS-archivearticle1.dtd">
<article xmlns:xlink="http://www.w3.org/1999/xlink" xmlns:mml="http://www.w3.org/1998/Math/MathML"
 xml:lang="en" article-type="research-article"><front><article-meta>
<article-id pub-id-type="doi">10.1234/Organ.5</article-id>
<title-group><article-title>Wind pressure in <italic>small</italic> organs</article-title></title-group>
<contrib-group><contrib contrib-type="author"><name><surname>Pfeifer</surname><given-names>Ada</given-names>
</name></contrib></contrib-group>
<permissions><copyright-statement>(c) 2020</copyright-statement>
<license xlink:href="http://creativecommons.org/licenses/{link}/4.0/"><license-p>{words}</license-p></license>
</permissions><abstract><p>We measured &alpha; and pressure.</p></abstract></article-meta></front>
<body><sec><label>1</label><title>Methods</title><p>Pressure was 10<sup>-3</sup> bar
<xref ref-type="bibr">[1]</xref><inline-formula><mml:math><mml:msup><mml:mi>x</mml:mi><mml:mn>2</mml:mn></mml:msup>
</mml:math></inline-formula>.<fig><label>Figure 1</label><caption><p>The bellows.</p></caption></fig> Then we waited.
</p><p>Only an image: <inline-formula><inline-graphic xlink:href="e.gif"/></inline-formula> here.</p>
<table-wrap><label>Table 1</label><caption><p>Values.</p></caption><table><tr><td>42</td></tr></table></table-wrap>
</sec></body><back><ack><p>Thanks.</p></ack><ref-list><ref><mixed-citation>Secret reference</mixed-citation></ref>
<ref><mixed-citation>Other</mixed-citation></ref></ref-list></back></article>"""


def jats(link: str = "by", words: str = "Creative Commons Attribution 4.0 License") -> str:
    return JATS.replace("{link}", link).replace("{words}", words)


def pdf(
    pages: Sequence[Sequence[tuple[float, float, float, str]]],
    *,
    encrypted: bool = False,
    stream: bytes = b"",
) -> bytes:
    """A PDF with text lines (x, y from the top, size, text) on A4 pages, in Helvetica."""
    objects: list[bytes] = [
        b"",
        b"",
        b"<< /Type /Font /Subtype /Type1 /BaseFont /Helvetica /Encoding /WinAnsiEncoding >>",
    ]
    kids = []
    for lines in pages:
        content = b"".join(
            f"BT /F1 {size} Tf {x} {842 - y} Td (".encode()
            + text.encode("cp1252")
            .replace(b"\\", b"\\\\")
            .replace(b"(", b"\\(")
            .replace(b")", b"\\)")
            + b") Tj ET\n"
            for x, y, size, text in lines
        )
        packed = zlib.compress(content + stream, 9)
        objects.append(
            b"<< /Length %d /Filter /FlateDecode >>\nstream\n%s\nendstream" % (len(packed), packed)
        )
        objects.append(
            b"<< /Type /Page /Parent 2 0 R /MediaBox [0 0 595 842] /Contents %d 0 R "
            b"/Resources << /Font << /F1 3 0 R >> >> >>" % len(objects)
        )
        kids.append(len(objects))
    objects[0] = b"<< /Type /Catalog /Pages 2 0 R >>"
    objects[1] = b"<< /Type /Pages /Count %d /Kids [%s] >>" % (
        len(kids),
        b" ".join(b"%d 0 R" % k for k in kids),
    )
    trailer = b"/Root 1 0 R"
    if encrypted:
        secret = b"A" * 64
        objects.append(
            b"<< /Filter /Standard /V 1 /R 2 /P -44 /O <%s> /U <%s> >>" % (secret, secret)
        )
        trailer += b" /Encrypt %d 0 R /ID [<00> <00>]" % len(objects)
    out = bytearray(b"%PDF-1.4\n")
    places = []
    for number, body in enumerate(objects, 1):
        places.append(len(out))
        out += b"%d 0 obj\n%s\nendobj\n" % (number, body)
    start = len(out)
    out += b"xref\n0 %d\n0000000000 65535 f \n" % (len(objects) + 1)
    out += b"".join(b"%010d 00000 n \n" % p for p in places)
    out += b"trailer << /Size %d %s >>\nstartxref\n%d\n%%%%EOF\n" % (
        len(objects) + 1,
        trailer,
        start,
    )
    return bytes(out)


def column(
    x: float, y: float, texts: Sequence[str], size: float = 10
) -> list[tuple[float, float, float, str]]:
    return [(x, y + 12 * i, size, text) for i, text in enumerate(texts)]


W = 'xmlns:w="http://schemas.openxmlformats.org/wordprocessingml/2006/main"'


def docx(path: Path, body: str, *, extra: dict[str, bytes] | None = None) -> Path:
    """A minimal Word document with this body XML (prefix w:)."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr(
            "word/document.xml", f"<w:document {W}><w:body>{body}</w:body></w:document>"
        )
        archive.writestr(
            "docProps/core.xml",
            '<cp:coreProperties xmlns:cp="http://schemas.openxmlformats.org/package/2006/metadata/core-properties" '
            'xmlns:dc="http://purl.org/dc/elements/1.1/"><dc:title>Windlade</dc:title><dc:creator>Ada</dc:creator>'
            "</cp:coreProperties>",
        )
        for name, data in (extra or {}).items():
            archive.writestr(name, data)
    return path


def zip_of_zeros(megabytes: int) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("word/document.xml", b"0" * (megabytes << 20))
    return buffer.getvalue()
