"""How Sphinx builds the documentation: `make docs`."""

project = "droppable"
extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]
exclude_patterns = ["adr/0000-template.md"]
html_theme = "furo"
html_static_path = ["_static"]
html_css_files = ["site.css"]
myst_enable_extensions = ["colon_fence"]
myst_heading_anchors = 3
autodoc_typehints = "description"
# Names of fields ("dropped") are in several classes, and lowlevel mentions what droppable re-exports.
suppress_warnings = ["autodoc.duplicate_object", "ref.python"]
