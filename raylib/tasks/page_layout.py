"""Text laid out as document pages: headings, paragraphs, code, one column or two; drawn with Pillow alone.

Layout and drawing are apart: `lay_out` decides which line stands where and what a page's text is, `draw` paints it.
Only the two fonts inside Pillow are used, with its own layout engine, so every machine draws the same page.
"""

from __future__ import annotations

import io
import re
import textwrap
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import cache
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from PIL import Image, ImageFont

WIDTH, HEIGHT = 827, 1170
"""A4 upright at 100 dots per inch, in pixels."""

CODE_CELL = (7, 13)
"""Width and height in pixels of one character of code."""

Kind = Literal["title", "heading", "text", "bullet", "code"]


@dataclass(frozen=True)
class Style:
    """How the pages of one document look. Sizes in pixels, colours as RGB."""

    columns: int = 1
    size: int = 14
    margin: int = 64
    gutter: int = 26
    accent: tuple[int, int, int] = (30, 60, 120)

    @property
    def column_width(self) -> int:
        return (WIDTH - 2 * self.margin - (self.columns - 1) * self.gutter) // self.columns

    @property
    def column_height(self) -> int:
        return HEIGHT - 2 * self.margin

    def font_size(self, kind: Kind) -> int:
        return {"title": self.size + 14, "heading": self.size + 2}.get(kind, self.size)


@dataclass(frozen=True)
class Block:
    """One heading, paragraph, list item or piece of code; code keeps its line breaks."""

    kind: Kind
    text: str


@dataclass(frozen=True)
class Line:
    """One line of a page. glue: what joins it to the line before when the page's text is put together;
    above, height: empty pixels over it and its own pixels."""

    kind: Kind
    text: str
    glue: str
    above: int
    height: int


@dataclass
class Page:
    """Lines with their positions (x, y of the top left corner), and the running head."""

    style: Style
    running_head: str
    number: int
    lines: list[tuple[int, int, Line]] = field(default_factory=list)

    @property
    def text(self) -> str:
        """All that is printed on the page, in reading order: paragraphs without their line breaks."""
        return self.running_head + "".join(line.glue + line.text for _, _, line in self.lines)


def parse_blocks(docstring: str) -> list[Block]:
    """A docstring's paragraphs, list items and code: doctests and what is indented by four or more, or
    lined up in columns, is code."""
    blocks: list[Block] = []
    for paragraph in re.split(r"\n[ \t]*\n", docstring.expandtabs().strip("\n")):
        lines = [line for line in paragraph.split("\n") if not re.fullmatch(r"\s*[-=~^*]{3,}\s*", line)]
        if not any(line.strip() for line in lines):
            continue
        first = lines[0]
        is_table = sum(re.search(r"\S {3,}\S", line) is not None for line in lines) >= 2
        if first.lstrip().startswith(">>>") or len(first) - len(first.lstrip()) >= 4 or is_table:
            blocks.append(_code(lines))
            continue
        blocks.extend(_prose(lines))
    return blocks


def _prose(lines: Sequence[str]) -> Iterator[Block]:
    """Lines of one paragraph → paragraphs and list items; from a doctest or a much deeper line on, code."""
    kind: Kind = "text"
    held: list[str] = []
    base = len(lines[0]) - len(lines[0].lstrip())
    for index, line in enumerate(lines):
        is_deeper = kind == "text" and len(line) - len(line.lstrip()) >= base + 4
        if line.lstrip().startswith(">>>") or is_deeper:
            if held:
                yield Block(kind, " ".join(held))
            yield _code(lines[index:])
            return
        item = re.match(r"\s*[-*+•] {1,2}(?=\S)", line)
        if item:
            if held:
                yield Block(kind, " ".join(held))
            kind, held = "bullet", line[item.end() :].split()
        else:
            held += line.split()
    if held:
        yield Block(kind, " ".join(held))


def _code(lines: Sequence[str]) -> Block:
    return Block("code", textwrap.dedent("\n".join(line.rstrip() for line in lines)))


def to_lines(blocks: Sequence[Block], style: Style) -> list[Line]:
    """Blocks broken into lines of one column's width. Code is cut at the column's edge and goes on below."""
    lines: list[Line] = []
    for block in blocks:
        size = style.font_size(block.kind)
        above = {"title": 0, "heading": 16, "bullet": 4}.get(block.kind, 8)
        if block.kind == "code":
            pieces = _code_pieces(block.text, (style.column_width - 16) // CODE_CELL[0])
            height = CODE_CELL[1] + 3
        else:
            width = style.column_width - (16 if block.kind == "bullet" else 0)
            pieces, height = _wrap(block.text, size, width), round(size * 1.35)
        for index, (text, glue) in enumerate(pieces):
            first = index == 0
            lines.append(Line(block.kind, text, "\n\n" if first else glue, above if first else 0, height))
    return lines


def _code_pieces(code: str, limit: int) -> Iterator[tuple[str, str]]:
    for line in code.split("\n"):
        yield line[:limit], "\n"
        for start in range(limit, len(line), limit):
            yield line[start : start + limit], ""


def _wrap(text: str, size: int, width: int) -> list[tuple[str, str]]:
    """(line, glue) of a paragraph; a word wider than the column is broken, with no glue."""
    pieces: list[tuple[str, str]] = []
    current, used, glue = "", 0.0, " "
    space = width_of(" ", size)
    for word in text.split():
        wide = width_of(word, size)
        if current and used + space + wide <= width:
            current, used = f"{current} {word}", used + space + wide
            continue
        if current:
            pieces.append((current, glue))
        glue = " "
        while wide > width:
            fits = max(n for n in range(1, len(word) + 1) if n == 1 or width_of(word[:n], size) <= width)
            fits = max((m.end() for m in re.finditer(r"[._(,/]", word[:fits])), default=fits)
            pieces.append((word[:fits], glue))
            word, glue = word[fits:], ""
            wide = width_of(word, size)
        current, used = word, wide
    return [*pieces, (current, glue)] if current else pieces


def lay_out(title: str, documents: Sequence[Sequence[Block]], style: Style) -> tuple[list[Page], list[int]]:
    """Pages that hold `documents` one after the other, and the index of the page of each.

    A document that does not fit in what is left of a page starts the next one; one longer than a whole page is cut
    at the page's end. The cut loses text from the page's image and from its `text` alike.
    """
    pages = [Page(style, title, 1)]
    homes: list[int] = []
    cursor = _place(pages[0], to_lines([Block("title", title)], style), (0, 0))[0]
    for blocks in documents:
        lines = to_lines(blocks, style)
        before = len(pages[-1].lines)
        cursor, left = _place(pages[-1], lines, cursor)
        is_alone = before <= (1 if len(pages) == 1 else 0)
        if left and not is_alone:
            del pages[-1].lines[before:]
            pages.append(Page(style, title, len(pages) + 1))
            cursor, _ = _place(pages[-1], lines, (0, 0))
        homes.append(len(pages) - 1)
    return pages, homes


def _place(page: Page, lines: Sequence[Line], cursor: tuple[int, int]) -> tuple[tuple[int, int], int]:
    """Put lines on a page from `cursor` (column, pixels down) on → the new cursor, and how many did not fit."""
    style = page.style
    column, down = cursor
    for index, line in enumerate(lines):
        above = line.above if down else 0
        # A heading keeps at least two lines of what it heads below it.
        room = line.height + (3 * style.size if line.kind == "heading" else 0)
        if down + above + room > style.column_height:
            column, down, above = column + 1, 0, 0
        if column >= style.columns:
            return (column, down), len(lines) - index
        x = style.margin + column * (style.column_width + style.gutter)
        page.lines.append((x, style.margin + down + above, line))
        down += above + line.height
    return (column, down), 0


def draw(page: Page) -> Image.Image:
    """The page as an RGB image of WIDTH × HEIGHT pixels."""
    from PIL import Image, ImageDraw

    style = page.style
    image = Image.new("RGB", (WIDTH, HEIGHT), (255, 255, 255))
    pen = ImageDraw.Draw(image)
    grey, ink = (120, 120, 120), (28, 28, 28)
    pen.text((style.margin, 28), "The Python Standard Library", font=font_of(11), fill=grey)
    pen.text((WIDTH - style.margin, 28), page.running_head, font=font_of(11), fill=grey, anchor="ra")
    pen.line((style.margin, 46, WIDTH - style.margin, 46), fill=(200, 200, 200))
    pen.text((WIDTH // 2, HEIGHT - 40), str(page.number), font=font_of(11), fill=grey, anchor="ma")
    for x, y, line in page.lines:
        if line.kind == "code":
            pen.rectangle((x, y - 2, x + style.column_width, y + line.height), fill=(243, 243, 240))
            _draw_code(image, (x + 8, y), line.text)
            continue
        if line.kind == "bullet":
            if line.glue == "\n\n":
                pen.ellipse((x + 4, y + style.size // 2, x + 8, y + style.size // 2 + 4), fill=ink)
            x += 16
        colour = style.accent if line.kind in ("title", "heading") else ink
        pen.text((x, y), line.text, font=font_of(style.font_size(line.kind)), fill=colour)
    return image


def _draw_code(image: Image.Image, corner: tuple[int, int], text: str) -> None:
    """Pillow's bitmap font, the one of fixed width on every machine, brought to the size of CODE_CELL."""
    from PIL import Image, ImageDraw, ImageFont

    text = text.encode("latin-1", "replace").decode("latin-1")
    if not text.strip():
        return
    small = Image.new("L", (6 * len(text), 11), 0)
    ImageDraw.Draw(small).text((0, 0), text, font=ImageFont.load_default_imagefont(), fill=255)
    ink = small.resize((CODE_CELL[0] * len(text), CODE_CELL[1]), Image.Resampling.LANCZOS)
    image.paste((40, 40, 40), corner, ink)


def to_png(image: Image.Image) -> bytes:
    stream = io.BytesIO()
    image.save(stream, format="PNG", compress_level=6)
    return stream.getvalue()


@cache
def font_of(size: int) -> ImageFont.FreeTypeFont:
    """Pillow's bundled font. The basic layout engine: the other one is not on every machine and kerns differently."""
    from PIL import ImageFont

    font = ImageFont.load_default(size)
    if not isinstance(font, ImageFont.FreeTypeFont):
        raise RuntimeError("this Pillow was built without FreeType; install Pillow from PyPI to draw pages")
    return font.font_variant(layout_engine=ImageFont.Layout.BASIC)


@cache
def width_of(word: str, size: int) -> float:
    return font_of(size).getlength(word)
