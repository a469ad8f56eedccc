"""The tools of a tenant as a framework gives them to its agents, called without a model. See ../README.md."""

import anyio.to_thread


class Toolbox:
    """`run(tool, arguments)` calls one of the framework's own tool objects and gives what a model would read."""

    def __init__(self, tools, run):
        self.by_name = {tool.name: tool for tool in tools}
        self.run = run

    async def tools(self, order):
        tools = self.by_name.values()
        return {"tools": [{"name": tool.name, "description": tool.description} for tool in tools]}

    async def call(self, order):
        text = await self.run(self.by_name[order["name"]], order["arguments"])
        if not isinstance(text, str):
            raise TypeError(f"a model would read no text: {text!r}")
        return {"text": text}


def first_text(blocks):
    """The first text of a list of content blocks, which is all that some frameworks show a model."""
    return next(block["text"] for block in blocks if block["type"] == "text")


async def in_thread(call, *arguments):
    """Calls what blocks."""
    return await anyio.to_thread.run_sync(call, *arguments, abandon_on_cancel=True)
