"""FastAPI: an answer that takes long is computed once and kept.

Needs fastapi and uvicorn. Run it: uvicorn --app-dir examples fastapi_app:app
"""

import asyncio

from fastapi import FastAPI, Response

import droppable

app = FastAPI()


@droppable.cache(ttl=60, stale=600)
async def forecast(town: str) -> dict[str, float]:
    await asyncio.sleep(0.05)  # in a real program: a request to another service
    return {"temperature": 20.0 + len(town)}


@app.get("/forecast/{town}")
async def show(town: str) -> dict[str, float]:
    return await forecast(town)


@app.delete("/forecast/{town}")
async def forget(town: str) -> Response:
    forecast.invalidate(town)
    return Response(status_code=204)
