"""One page with a tab for each thing that can be talked to, served on this machine alone unless told otherwise."""

import logging
import os
import sys
from collections.abc import Callable, Mapping
from typing import Any

os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"  # read as gradio is imported: it would report to its makers

import gradio as gr

from lavic.errors import UserError
from lavic.web.cards import CSS
from lavic.web.uploads import Uploads

WAITING = 64  # requests in the queue at most
LARGEST_UPLOAD = "12mb"
STYLE = (
    CSS
    + """
footer, .message-buttons {display: none !important} /* among the latter, Gradio's to publish an uploaded image */
.gradio-container {width: 100%; max-width: 1280px !important; margin: auto}
"""
)


class Page(gr.Blocks):
    """A page that removes what its visitors have uploaded as it is closed."""

    uploads: Uploads

    def close(self, verbose: bool = True) -> None:
        """Ends the server."""
        super().close(verbose)
        self.uploads.close()


def build_page(title: str, tabs: Mapping[str, Callable[[], None]]) -> Any:
    """A page of tabs; each is given as what puts its components in. What visitors upload goes with the process."""
    uploads = Uploads()
    os.environ["GRADIO_TEMP_DIR"] = str(uploads.folder)  # read as components are made
    with Page(title=title, analytics_enabled=False) as page:
        page.uploads = uploads
        gr.Markdown(f"# {title}")
        for name, fill in tabs.items():
            with gr.Tab(name):
                fill()
    return page


def serve(page: Any, host: str, port: int, share: bool = False, block: bool = True) -> Any:
    """Serves the page until interrupted, and says where once it does; requests wait in a queue.

    Args:
        page: what `build_page` made.
        host: address to listen on.
        port: port to listen on; 0 takes a free one.
        share: publish through Gradio's relay.
        block: return only when the server has ended.

    Raises:
        UserError: the port is taken.
    """
    logging.getLogger("httpx").setLevel(logging.WARNING)  # a line for each request of Gradio to itself
    page.queue(max_size=WAITING, default_concurrency_limit=1)
    try:
        served = page.launch(
            server_name=host,
            server_port=port or None,
            share=share,
            quiet=True,
            show_error=True,
            max_file_size=LARGEST_UPLOAD,
            prevent_thread_lock=True,
            theme=gr.themes.Default(font=["system-ui", "sans-serif"], font_mono=["monospace"]),
            css=STYLE,
            footer_links=[],
        )
    except OSError as error:
        reason = f"it was taken meanwhile, or --host {host} is not this machine's" if port else error
        raise UserError(f"--port {port} cannot be listened on ({reason}); give another --port.") from None
    print(f"{page.local_url.rstrip('/')} (Ctrl-C ends it)", file=sys.stderr)
    if block:
        page.block_thread()
    return served
