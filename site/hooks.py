"""What MkDocs runs: adds the staged pages (stage.py) to the site's own files."""

from __future__ import annotations

from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.exceptions import PluginError
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page
from problems import StageError
from stage import stage


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the lecture notes and labs, generated from their folders beside docs_dir."""
    try:
        staged = stage(Path(config.config_file_path).parent, config.site_url or "")
    except StageError as error:
        raise PluginError(f"The site cannot be built: {error}") from error
    for address, content in staged.items():
        files.append(File.generated(config, address, content=content))
    return files


def on_page_content(html: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Leave the code of labs out of the search: it was half of the index, and every page loads the index."""
    if page.file.src_uri.startswith("labs/"):
        return html.replace('<div class="highlight">', '<div class="highlight" data-search-exclude>')
    return html
