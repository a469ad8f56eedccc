"""Executes a test's orders with a client: one JSON object a line in, one out. See README.md."""

import json
import os
import sys

import anyio
import anyio.to_thread

# Answers go to standard output; what a library that is imported later prints does not.
ANSWERS, sys.stdout = sys.stdout, sys.stderr


async def next_order():
    line = await anyio.to_thread.run_sync(sys.stdin.readline, abandon_on_cancel=True)
    return json.loads(line) if line else None


def say(answer):
    print(json.dumps(answer), file=ANSWERS, flush=True)


def describe(error):
    """Returns the last line of a traceback; the errors of a group are joined."""
    if isinstance(error, BaseExceptionGroup):
        return "; ".join(describe(one) for one in error.exceptions)
    return f"{type(error).__name__}: {error}"


async def follow(connected):
    """Executes orders until the input ends.

    `connected(order)` is a context manager that yields the negotiated version and an object with a method
    for each order. A library may close the connection because of an error in an order: the error is then the
    answer, and the last one.
    """
    try:
        async with connected(await next_order()) as (version, verbs):
            say({"version": version})
            await perform(verbs)
        say({"closed": True})
        await next_order()
    except Exception as error:
        say({"error": describe(error)})


async def perform(verbs):
    while (order := await next_order()) is not None:
        if order["do"] == "close":
            break
        try:
            say(await getattr(verbs, order["do"])(order))
        except Exception as error:
            say({"error": describe(error)})


async def asked(question):
    """Sends a line to the test while an order is executed, and returns the test's next line."""
    say(question)
    return await next_order()


async def until_told(order, call):
    """Awaits a call. A stoppable one is cancelled with anyio when the next line arrives."""
    if not order.get("stoppable"):
        return await call
    result = None
    async with anyio.create_task_group() as tasks:

        async def stop():
            await next_order()
            tasks.cancel_scope.cancel()

        tasks.start_soon(stop)
        result = await call
        tasks.cancel_scope.cancel()
    if result is None:
        raise RuntimeError("the call was cancelled")
    return result


class Progress:
    """A progress callback that records its calls."""

    def __init__(self, order):
        self.beats = []
        self.callback = self.note if order.get("progress") else None

    async def note(self, progress, total, message):
        self.beats.append(message or progress)


def told(failed, content, data, progress):
    text = "\n".join(getattr(block, "text", "") for block in content)
    return {"failed": bool(failed), "text": text, "data": data, "progress": progress.beats}


def key():
    return os.environ.get("PEER_KEY")


def headers():
    return {"Authorization": f"Bearer {key()}"} if key() else None


def main(connected):
    anyio.run(follow, connected)
    # The thread that reads the next order may still wait for it.
    ANSWERS.flush()
    os._exit(0)
