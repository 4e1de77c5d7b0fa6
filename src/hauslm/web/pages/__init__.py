"""The pages by topic. Each module has `routes(room)`, which gives the routes of its topic."""
