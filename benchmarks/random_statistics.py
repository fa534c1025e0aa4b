"""Judges droppable.random by statistical suites that no one here wrote: rngtest (FIPS 140-2) and dieharder.

    python benchmarks/random_statistics.py --suite rngtest --out rngtest.json       1 GiB of each stream
    python benchmarks/random_statistics.py --suite dieharder --out dieharder.json   the whole battery: an hour or two
    python benchmarks/random_statistics.py --stream tokens | some-other-suite       endless raw bytes

Needs Debian's `rng-tools5` and `dieharder`, and NumPy. The streams:

    tokens   token_bytes(16) after token_bytes(16): the vDSO's own batches
    mixed    sizes 1 to 600 in turn: odd positions, and both sides of the 256 bytes where long requests begin
    numpy    numpy.random.Generator(BitGenerator()).bytes: the block, word by word
    urandom  os.urandom: the control

What counts as a pass: in dieharder, no test "FAILED" (p outside 10^-6); of the battery's hundred p-values one or two
below 0.005 ("WEAK") are expected from perfect bytes. rngtest rejects about 8 in 10,000 blocks of perfect bytes by
design, so the share rejected is compared with the control's: the difference must be below 4 standard errors.

Bias: a suite that fails is evidence, a suite that passes is little; the cipher is the kernel's and was not chosen here.
"""

import argparse
import json
import math
import os
import platform
import re
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

STREAMS = ("tokens", "mixed", "numpy", "urandom")
BLOCK_BITS = 20_000  # of FIPS 140-2
DIEHARDER_TESTS = (*range(5), *range(8, 14), *range(15, 18), 100, 101, 102, *range(200, 210))
"""All but those that dieharder itself calls suspect (5, 6, 7) or not to be used (14)."""
HEAVY_NTUPLES = {200: range(1, 13), 201: range(2, 6), 202: range(2, 6), 203: range(33)}  # as dieharder -a goes


def chunks(stream: str) -> Iterator[bytes]:
    """Endless chunks of some 100 KB."""
    from droppable import random

    if stream == "tokens":
        draw = random.token_bytes
        while True:
            yield b"".join([draw(16) for _ in range(8192)])
    if stream == "mixed":
        draw = random.token_bytes
        while True:
            yield b"".join([draw(size) for size in range(1, 601)])
    if stream == "numpy":
        import numpy

        generator = numpy.random.Generator(random.BitGenerator())
        while True:
            yield generator.bytes(131072)
    while True:
        yield os.urandom(131072)


def write_stream(stream: str, limit_bytes: int | None) -> None:
    """Writes the stream to standard output until the limit or the reader's end; says on stderr how much it was."""
    left = limit_bytes
    written = 0
    try:
        for chunk in chunks(stream):
            part = chunk if left is None else chunk[:left]
            sys.stdout.buffer.write(part)
            written += len(part)
            if left is not None:
                left -= len(part)
                if left == 0:
                    break
        sys.stdout.buffer.flush()
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    print(written, file=sys.stderr)


def pipe(stream: str, command: list[str], limit_bytes: int | None = None) -> tuple[str, int]:
    """Feeds command from a stream; returns all it printed and the bytes the stream wrote."""
    writer_command = [sys.executable, __file__, "--stream", stream]
    if limit_bytes is not None:
        writer_command += ["--bytes", str(limit_bytes)]
    with subprocess.Popen(writer_command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as writer:
        reader = subprocess.run(command, stdin=writer.stdout, capture_output=True, text=True, check=False)
        assert writer.stdout is not None
        assert writer.stderr is not None
        writer.stdout.close()
        written = int(writer.stderr.read().split()[-1])
    return reader.stdout + reader.stderr, written


def run_rngtest(size_bytes: int, _: tuple[int, ...], __: tuple[str, ...]) -> dict[str, object]:
    results: dict[str, dict[str, object]] = {}
    for stream in STREAMS:
        output, written = pipe(stream, ["rngtest"], size_bytes)
        passed = int(re.search(r"FIPS 140-2 successes: (\d+)", output)[1])  # type: ignore[index]
        rejected = int(re.search(r"FIPS 140-2 failures: (\d+)", output)[1])  # type: ignore[index]
        kinds = {name: int(count) for name, count in re.findall(r"FIPS 140-2\([\d-]+\) ([\w ]+): (\d+)", output)}
        results[stream] = {"bytes": written, "blocks": passed + rejected, "rejected": rejected, "by_test": kinds}
        print(stream, results[stream], flush=True)
    control = results["urandom"]
    verdicts = {}
    for stream, result in results.items():
        count, control_count = int(str(result["blocks"])), int(str(control["blocks"]))
        share, control_share = int(str(result["rejected"])) / count, int(str(control["rejected"])) / control_count
        pooled = (share * count + control_share * control_count) / (count + control_count)
        error = math.sqrt(pooled * (1 - pooled) * (1 / count + 1 / control_count))
        result["rejected_share"] = share
        result["standard_errors_from_control"] = (share - control_share) / error if error else 0.0
        verdicts[stream] = abs(share - control_share) <= 4 * error
    return {"streams": results, "passed": all(verdicts.values())}


def run_dieharder(_: int, tests: tuple[int, ...], streams: tuple[str, ...]) -> dict[str, object]:
    """Each test once; the streams take turns, so that each of three meets a third of the battery."""
    rows = []
    total_bytes = 0
    jobs = [(test, ntuple) for test in tests for ntuple in HEAVY_NTUPLES.get(test, (None,))]
    for number, (test, ntuple) in enumerate(jobs):
        stream = streams[number % len(streams)]
        command = ["dieharder", "-g", "200", "-d", str(test)] + ([] if ntuple is None else ["-n", str(ntuple)])
        started = time.monotonic()
        output, written = pipe(stream, command)
        total_bytes += written
        known = len(rows)
        for line in output.splitlines():
            fields = [field.strip() for field in line.split("|")]
            if len(fields) == 6 and fields[5] in ("PASSED", "WEAK", "FAILED"):
                rows.append(
                    {
                        "test": fields[0],
                        "ntuple": int(fields[1]),
                        "p": float(fields[4]),
                        "assessment": fields[5],
                        "stream": stream,
                    }
                )
        print(
            f"{test} {ntuple} {stream} {written / 1e6:.0f} MB {time.monotonic() - started:.0f} s:",
            ", ".join(f"{row['p']} {row['assessment']}" for row in rows[known:]),
            flush=True,
        )
    counts = {word: sum(row["assessment"] == word for row in rows) for word in ("PASSED", "WEAK", "FAILED")}
    return {
        "bytes": total_bytes,
        "results": rows,
        "counts": counts,
        "passed": counts["FAILED"] == 0 and counts["PASSED"] > 0,
    }


SUITES: dict[str, Callable[[int, tuple[int, ...], tuple[str, ...]], dict[str, object]]] = {
    "rngtest": run_rngtest,
    "dieharder": run_dieharder,
}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--suite", choices=SUITES)
    parser.add_argument("--stream", choices=STREAMS)
    parser.add_argument("--bytes", type=int, help="of each stream; default 1 GiB for rngtest, endless for --stream")
    parser.add_argument("--tests", type=int, nargs="+", default=DIEHARDER_TESTS, help="dieharder's numbers")
    parser.add_argument("--streams", choices=STREAMS, nargs="+", default=STREAMS[:3], help="for dieharder, in turn")
    parser.add_argument("--out", type=Path, help="where the JSON goes")
    arguments = parser.parse_args()
    if arguments.stream:
        write_stream(arguments.stream, arguments.bytes)
        return 0
    if not arguments.suite:
        parser.error("--suite or --stream")
    report = SUITES[arguments.suite](arguments.bytes or 1 << 30, tuple(arguments.tests), tuple(arguments.streams))
    report = {"suite": arguments.suite, "kernel": platform.release(), "python": platform.python_version(), **report}
    if arguments.out:
        arguments.out.write_text(json.dumps(report, indent=1) + "\n")
    print("passed" if report["passed"] else "FAILED")
    return 0 if report["passed"] else 1


if __name__ == "__main__":
    sys.exit(main())
