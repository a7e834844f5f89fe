"""usage: html_check.py PAGE SECTION ...: the page is well-formed, loads nothing, links only to what is there, and has these sections."""
import sys
from html.parser import HTMLParser

VOID = {"meta", "input", "br", "img", "link"}


class Page(HTMLParser):
    def __init__(self):
        super().__init__()
        self.open, self.ids, self.links, self.sections, self.scripts, self.wrong = [], [], [], [], 0, []

    def handle_starttag(self, tag, attributes):
        for name, value in attributes:
            if name in ("src", "srcset", "data", "action", "xlink:href") or name.startswith("on"):
                self.wrong.append(f"<{tag} {name}={value!r}>")
            if name == "href":
                self.links.append(value)
            if name == "id":
                self.ids.append(value)
                if tag == "section":
                    self.sections.append(value)
        if tag in ("link", "iframe", "object", "embed", "img", "base", "form"):
            self.wrong.append(f"<{tag}>")
        self.scripts += tag == "script"
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attributes):
        self.handle_starttag(tag, attributes)
        self.handle_endtag(tag)

    def handle_endtag(self, tag):
        if not self.open or self.open.pop() != tag:
            self.wrong.append(f"</{tag}> at {self.getpos()} closes nothing that is open")


page = Page()
with open(sys.argv[1], encoding="utf-8") as file:
    page.feed(file.read())
page.close()
wrong = page.wrong
wrong += [f"<{tag}> is not closed" for tag in page.open]
wrong += [f"link to {link}" for link in page.links if link[:1] != "#" or link[1:] not in page.ids]
wrong += [f"no section {name}" for name in sys.argv[2:] if name not in page.sections]
if len(set(page.ids)) != len(page.ids):
    wrong.append("an id is there twice")
if page.scripts != 1:
    wrong.append(f"{page.scripts} scripts")
for line in wrong:
    print(f"{sys.argv[1]}: {line}")
sys.exit(bool(wrong))
