"""What a page opens."""

from html.parser import HTMLParser


class Tags(HTMLParser):
    """Every tag of a page, in order."""

    def __init__(self):
        super().__init__()
        self.seen = []

    def handle_starttag(self, tag, attrs):
        self.seen.append(tag)
