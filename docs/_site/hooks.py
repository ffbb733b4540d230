"""What MkDocs calls while the site is built: it adds the pages that the package tells of itself."""

from __future__ import annotations

from typing import Any

import pages
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page


def on_files(files: Files, config: Any) -> Files:
    """Add the generated pages and pictures to the files of the site."""
    for path, content in pages.generated():
        files.append(File.generated(config, path, content=content))
    return files


def on_page_markdown(markdown: str, page: Page, **_: Any) -> str:
    """Lead a page's links to examples to the site's copies of them."""
    return pages.to_examples(markdown, page.file.src_uri)
