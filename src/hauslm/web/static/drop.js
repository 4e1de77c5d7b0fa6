// A file that is dropped anywhere on the form is chosen and sent; the form works without this script.
const form = document.getElementById("drop");
const field = document.getElementById("file");
for (const name of ["dragenter", "dragover"]) {
  form.addEventListener(name, (event) => { event.preventDefault(); form.classList.add("over"); });
}
form.addEventListener("dragleave", () => form.classList.remove("over"));
form.addEventListener("drop", (event) => {
  event.preventDefault();
  form.classList.remove("over");
  if (!event.dataTransfer.files.length) return;
  field.files = event.dataTransfer.files;
  if (!form.querySelector("button").disabled) form.requestSubmit();
});
