"""A pipeline for documents: a node cuts them into pages, one has a child for each page, one puts it all together."""

import asyncio
from collections import Counter

from fastapi import FastAPI
from pydantic import BaseModel

from hurlbat import Concurrency, Context, Hurlbat, HurlbatError

hurlbat = Hurlbat()


class Document(BaseModel):
    title: str
    text: str


class Page(BaseModel):
    number: int
    text: str


class Report(BaseModel):
    title: str
    pages: int
    words: int
    unreadable: list[int]
    most_common: str | None


# A page takes a while, and the reader that it stands for has eight seats, whoever's pages they are.
@hurlbat.task(retries=1, concurrency=Concurrency("'reader'", max_runs=8))
async def read_page(page: Page) -> dict[str, int]:
    await asyncio.sleep(0.02)
    if "#" in page.text:
        raise ValueError(f"page {page.number} is smudged")
    return Counter(page.text.lower().split())


document = hurlbat.workflow("document", input=Document)


@document.task
async def cut(input: Document) -> list[Page]:
    return [Page(number=number, text=text) for number, text in enumerate(input.text.split("\f"), 1)]


# How many pages there are is known here alone, so they are children and no nodes. With a key, a second attempt finds
# the children of the first, and reads no page twice.
@document.task(parents=cut, retries=2)
async def read(ctx: Context) -> list[dict[str, int] | None]:
    pages = ctx.output(cut)
    found = await read_page.run_many(pages, child_key="page", return_exceptions=True)
    return [None if isinstance(words, HurlbatError) else words for words in found]


# Beside the reading.
@document.task(parents=cut)
def cover(input: Document, ctx: Context) -> str:
    return f"{input.title.upper()} ({len(ctx.output(cut))} pages)"


@document.task(parents=[read, cover])
async def report(ctx: Context) -> Report:
    pages = ctx.output(read)
    words: Counter[str] = Counter()
    for page in pages:
        words.update(page or {})
    return Report(
        title=ctx.output(cover),
        pages=len(pages),
        words=words.total(),
        unreadable=[number for number, page in enumerate(pages, 1) if page is None],
        most_common=words.most_common(1)[0][0] if words else None,
    )


app = FastAPI(title="Archive", lifespan=hurlbat.lifespan)
app.mount("/hurlbat", hurlbat.asgi())


@app.post("/documents")
async def take_in(new: Document) -> Report:
    """Wait for the report."""
    output = await document.run(new, timeout=60)
    return Report.model_validate(output["report"])
