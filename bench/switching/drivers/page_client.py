"""One upload by our page in Chromium: python page_client.py LINK FILE.

The page is loaded before the clock starts; `begin` says that the file was chosen.
"""

from __future__ import annotations

import json
import sys

from tests.fixtures.chromium import running_chromium

# Without the dialog of the system, which nobody here can answer: then the page takes its <input>.
NO_PICKER = "delete window.showOpenFilePicker"
ENDED = '.file[data-state="done"], .file[data-state="failed"]'


def main() -> int:
    """Upload and tell; 1 when the page says that it failed."""
    link, file = sys.argv[1:]
    with running_chromium() as browser, browser.new_context() as context:
        page = context.new_page()
        page.add_init_script(NO_PICKER)
        page.goto(link, wait_until="networkidle")
        with page.expect_file_chooser() as chooser:
            page.get_by_role("button", name="Choose files").click()
        print(json.dumps({"begin": True}), flush=True)
        chooser.value.set_files(file)
        row = page.locator(ENDED)
        row.wait_for(timeout=0)
        if row.get_attribute("data-state") != "done":
            print(row.inner_text(), file=sys.stderr)
            return 1
        print(json.dumps({"done": row.locator(".file-name a").get_attribute("href")}), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
