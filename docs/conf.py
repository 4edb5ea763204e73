"""The documentation site: pages in Markdown (MyST), tutorials that are executed when it is built.

``scripts/build_docs.py`` builds it, with the MongoDB that the tutorial on clusters needs.
"""

from importlib.metadata import version as installed

project = "PhononBench Flows"
author = "The PhononBench Flows authors"
release = version = installed("phononbench-flows")
extensions = ["myst_nb", "sphinx.ext.autodoc", "sphinx.ext.napoleon", "sphinx_copybutton"]
exclude_patterns = ["_build"]

myst_enable_extensions = ["colon_fence"]
myst_heading_anchors = 3

nb_execution_mode = "force"
nb_execution_raise_on_error = True
nb_execution_timeout = 1800
# Each tutorial in a folder of its own, that is gone afterwards.
nb_execution_in_temp = True
# Progress, and what libraries say. What fails ends the build all the same.
nb_output_stderr = "remove"

autodoc_member_order = "bysource"
autodoc_typehints = "description"
autodoc_typehints_description_target = "documented"
add_module_names = False

html_theme = "furo"
html_show_copyright = False
html_title = f"PhononBench Flows {release}"
copybutton_prompt_text = r">>> |\$ "
copybutton_prompt_is_regexp = True
