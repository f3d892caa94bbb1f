"""The documentation as a site: `make site`. Sphinx reads the same pages that a reader of the repository sees."""

from redinstruct.version import __version__

project = "redinstruct"
author = "The redinstruct authors"
copyright = "2026, the redinstruct authors"  # noqa: A001  (Sphinx's own name)
version = release = __version__

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon", "sphinx_copybutton"]
root_doc = "docs/index"
include_patterns = ["docs/**", "SECURITY.md", "CONTRIBUTING.md", "CHANGELOG.md"]
exclude_patterns = ["docs/examples/**", "docs/site/conf.py"]
source_suffix = {".md": "markdown", ".rst": "restructuredtext"}

# Headings get the names that the pages' own links use (#what-it-is), as on a code host.
myst_heading_anchors = 4
myst_enable_extensions = ["colon_fence"]
# Our own languages of fences: what a block of shell commands prints has none.
highlight_language = "none"

autodoc_typehints = "description"
autodoc_member_order = "bysource"
napoleon_google_docstring = True
nitpicky = False

html_theme = "furo"
html_title = f"redinstruct {__version__}"
html_extra_path = ["start"]
html_show_sourcelink = False
# Copy a block of commands without the prompt or what it prints.
copybutton_prompt_text = r"\$ "
copybutton_prompt_is_regexp = True
html_theme_options = {"navigation_with_keys": True}
