"""How the documentation is built: API pages from each `__all__`, tutorials from `analyses/`, figures computed."""

import os
import sys
from importlib.metadata import version as installed_version
from pathlib import Path

HERE = Path(__file__).parent
sys.path[:0] = [str(HERE), str(HERE / "_ext")]
# the plots of the Concepts page import figures.style
os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, [str(HERE), os.environ.get("PYTHONPATH")]))

project = "wiu_pyro"
author = "wiu_pyro contributors"
copyright = "wiu_pyro contributors"
release = version = installed_version("wiu_pyro")

extensions = [
    "sphinx.ext.autodoc",
    "sphinx.ext.autosummary",
    "sphinx.ext.mathjax",
    "numpydoc",
    "matplotlib.sphinxext.plot_directive",
    "sphinx_copybutton",
    "sphinx_gallery.gen_gallery",
    "api_pages",
]
templates_path = ["_templates"]
exclude_patterns = ["_build", "snippets", "figures", "measured", "**/GALLERY_HEADER.rst"]
default_role = "py:obj"
nitpicky = False

autosummary_generate = True
autosummary_imported_members = True
autodoc_member_order = "bysource"
autodoc_typehints = "none"
numpydoc_show_class_members = False
numpydoc_attributes_as_param_list = True

html_theme = "pydata_sphinx_theme"
html_title = "wiu_pyro"
html_static_path = ["_static"]
html_css_files = ["wiu.css"]
html_sidebars = {page: [] for page in ("getting_started", "concepts", "extending", "tutorials/*")}
html_theme_options = {
    "show_toc_level": 2,
    "navigation_with_keys": False,
    "footer_start": ["copyright"],
    "footer_end": ["theme-version"],
}
html_copy_source = False
html_show_sourcelink = False

plot_apply_rcparams = True
plot_rcparams = {
    "font.size": 10,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "legend.frameon": False,
}
plot_include_source = False
plot_html_show_source_link = False
plot_html_show_formats = False
plot_formats = [("png", 160)]

sphinx_gallery_conf = {
    "examples_dirs": ["../analyses"],
    "gallery_dirs": ["tutorials"],
    "filename_pattern": r"\.py$",
    "within_subsection_order": "gallery_order.InOrder",
    "abort_on_example_error": True,
    "write_computation_times": False,
    "download_all_examples": False,
    "show_signature": False,
    "remove_config_comments": True,
    "matplotlib_animations": False,
}
copybutton_prompt_text = r">>> |\.\.\. |\$ "
copybutton_prompt_is_regexp = True
