"""What batches across requests are worth: texts per second of N clients with one text each, beside the encoder alone.

Run with the project's Python and the command: `target/xtask/venv/bin/python benches/serve.py target/release/aneforge`.
Each client is a thread that sends a text, waits for its vector, and sends the next one, over one connection. Prints JSON:
texts per second for each number of clients, the median and the 99th percentile of a request's milliseconds, and the inputs of a
batch on average; beside them the encoder in this process, text by text (nobody waits for anybody) and all texts at once
(nobody waits for requests). Rounds alternate; medians of them are given. With `--soak SECONDS` 64 clients ask for so long, while
others send half of a request, wait, and go away: failed requests, the server's memory after a sixth of the time and at the end, and
the encoder alone on as many texts as were answered, before and after. The clients take processor time from the server: they
are in Python, and run on the same machine.
"""

from __future__ import annotations

import argparse
import http.client
import importlib.util
import json
import re
import socket
import statistics
import subprocess
import sys
import threading
import time
import urllib.request
from pathlib import Path
from typing import Any

import aneforge as af

sys.path.insert(0, str(Path(__file__).parents[1] / "python" / "tests"))
import made  # noqa: E402

CLIENTS = [1, 4, 16, 32]


class Server:
    """The command, listening."""

    def __init__(self, command: str, model: str) -> None:
        line = [command, "--quiet", "serve", "--json", "--device", "host", "--port", "0", "--truncate", "--model", f"m={model}"]
        self.process = subprocess.Popen(line, stdout=subprocess.PIPE, text=True)
        assert self.process.stdout
        self.address = json.loads(self.process.stdout.readline())["address"]

    def counted(self) -> tuple[float, float]:
        """Inputs of all batches, and batches."""
        with urllib.request.urlopen(f"http://{self.address}/metrics") as answer:
            text = answer.read().decode()
        found = [re.search(rf"^aneforge_batch_inputs_{end}\{{.*\}} (\S+)$", text, re.M) for end in ("sum", "count")]
        return tuple(float(one[1]) if one else 0.0 for one in found)  # type: ignore[return-value]


def clients(server: Server, texts: list[str], count: int) -> dict[str, float]:
    """All texts, divided among so many clients."""
    times: list[float] = []

    def work(share: list[str]) -> None:
        connection = http.client.HTTPConnection(server.address)
        for text in share:
            start = time.perf_counter()
            body = json.dumps({"input": text, "encoding_format": "base64"})
            connection.request("POST", "/v1/embeddings", body, {"Content-Type": "application/json"})
            answer = connection.getresponse()
            got = answer.read()
            assert answer.status == 200, got
            times.append(time.perf_counter() - start)
        connection.close()

    threads = [threading.Thread(target=work, args=(texts[at::count],)) for at in range(count)]
    before, start = server.counted(), time.perf_counter()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    took, after = time.perf_counter() - start, server.counted()
    times.sort()
    return {
        "texts_per_second": len(texts) / took,
        "median_ms": 1e3 * times[len(times) // 2],
        "p99_ms": 1e3 * times[len(times) * 99 // 100],
        "inputs_of_a_batch": (after[0] - before[0]) / max(1.0, after[1] - before[1]),
    }


def resident(server: Server) -> int:
    """MiB of memory that the server holds."""
    status = Path(f"/proc/{server.process.pid}/status").read_text()
    return int(re.search(r"VmRSS:\s+(\d+)", status)[1]) >> 10  # type: ignore[index]


def rude(server: Server, stop: threading.Event) -> None:
    """Half a request, then silence, then nobody."""
    host, port = server.address.rsplit(":", 1)
    while not stop.is_set():
        with socket.create_connection((host, int(port))) as connection:
            connection.sendall(b"POST /v1/embeddings HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: 99\r\n\r\n{")
            stop.wait(2)


def soaked(server: Server, encoder: Any, texts: list[str], seconds: float) -> dict[str, float]:
    times: list[float] = []
    failed = [0]
    end = time.perf_counter() + seconds
    stop = threading.Event()

    def work(at: int) -> None:
        connection = http.client.HTTPConnection(server.address)
        while (start := time.perf_counter()) < end:
            at = (at + 1) % len(texts)
            body = json.dumps({"input": texts[at], "encoding_format": "base64"})
            try:
                connection.request("POST", "/v1/embeddings", body, {"Content-Type": "application/json"})
                answer = connection.getresponse()
                answer.read()
                failed[0] += answer.status != 200
            except OSError:
                failed[0] += 1
                connection = http.client.HTTPConnection(server.address)
            times.append(time.perf_counter() - start)

    threads = [threading.Thread(target=work, args=(5 * at,)) for at in range(64)]
    others = [threading.Thread(target=rude, args=(server, stop)) for _ in range(8)]
    before, start, used = alone(encoder, texts)["all_at_once"], time.perf_counter(), time.process_time()
    end = start + seconds
    for thread in [*others, *threads]:
        thread.start()
    time.sleep(seconds / 6)
    early = resident(server)
    for thread in threads:
        thread.join()
    took = time.perf_counter() - start
    used = time.process_time() - used
    stop.set()
    late = resident(server)
    after = alone(encoder, texts)["all_at_once"]
    times.sort()
    return {
        "requests": len(times), "failed": failed[0], "texts_per_second": len(times) / took, "encoder_alone_before": before,
        "encoder_alone_after": after, "median_ms": 1e3 * times[len(times) // 2], "p99_ms": 1e3 * times[len(times) * 99 // 100],
        "MiB_early": early, "MiB_late": late, "processor_seconds_of_clients": used, "seconds": took,
    }  # fmt: skip


def alone(encoder: Any, texts: list[str]) -> dict[str, float]:
    start = time.perf_counter()
    for text in texts:
        encoder([text])
    one, start = time.perf_counter() - start, time.perf_counter()
    encoder(texts)
    return {"one_by_one": len(texts) / one, "all_at_once": len(texts) / (time.perf_counter() - start)}


def medians(rounds: list[dict[str, float]]) -> dict[str, float]:
    return {key: round(statistics.median(one[key] for one in rounds), 2) for key in rounds[0]}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("command", help="the built command, such as target/release/aneforge")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--texts", type=int, default=320)
    parser.add_argument("--soak", type=float, default=0.0, metavar="SECONDS")
    arguments = parser.parse_args()
    model = str(made.minilm())
    sentences = [text for text in made.sentences(arguments.texts + 1) if text][: arguments.texts]
    words = [" ".join(text.split()[:5]) for text in sentences]
    word = [text.split()[0] for text in sentences]
    encoder = af.load(model, device="host")
    server = Server(arguments.command, model)
    try:
        if arguments.soak:
            clients(server, sentences, 16)
            alone(encoder, sentences)
            print(json.dumps(soaked(server, encoder, sentences, arguments.soak), indent=2))
            return
        result: dict[str, Any] = {}
        for name, texts in (("a word", word), ("five words", words), ("sentences of documents", sentences)):
            rows: dict[str, list[dict[str, float]]] = {}
            for turn in range(arguments.rounds + 1):
                row = {"the encoder alone": alone(encoder, texts)}
                row |= {f"{count} clients": clients(server, texts, count) for count in CLIENTS}
                # The first one compiles.
                for key, value in row.items() if turn else []:
                    rows.setdefault(key, []).append(value)
            result[name] = {key: medians(rounds) for key, rounds in rows.items()}
        print(json.dumps({"texts": arguments.texts, "rounds": arguments.rounds, **result}, indent=2))
    finally:
        server.process.terminate()
        server.process.wait()


if __name__ == "__main__":
    main()
