"""What `table` builds. Every file is the same on every machine."""
import os, random, subprocess, time
from dataclasses import dataclass, field
from typing import Callable, Optional

# Buildah's seconds and those that kiln may take at most, where both were measured first: their ratio is what is asked.
COLD, SAME, EDITED, EMPTY = "cold", "nothing changed", "edited", "empty disk, registry cache"


@dataclass
class Work:
    name: str
    title: str
    prepare: Callable
    edit: Optional[Callable] = None
    jobs: Optional[int] = None
    asked: dict = field(default_factory=dict)


def settle():
    """Lets earlier writes reach the disk, and the clock move on from files just written."""
    os.sync()
    time.sleep(0.1)


def file_system(path):
    return subprocess.run(["stat", "-f", "-c", "%T", path], check=True, stdout=subprocess.PIPE, text=True).stdout.strip()


def write(folder, path, data):
    path = os.path.join(folder, path)
    os.makedirs(os.path.dirname(path), exist_ok=True)
    with open(path, "wb" if isinstance(data, bytes) else "w") as f:
        f.write(data)


class Text:
    """Lines of made-up words, some far more frequent than others, indented here and there: packs about as sources do."""

    def __init__(self, seed):
        self.random = random.Random(seed)
        letters = "etaoinshrdlucmfwypvbgk"
        words = ["".join(self.random.choices(letters, k=self.random.randint(2, 11))) for _ in range(6000)]
        weights = [1 / (n + 5) for n in range(len(words))]
        ends = [" "] * 9 + ["(", ")", ".", ", ", " = ", "_", ";\n", "\n    ", " {\n        ", "\n}\n", f" {seed} "]
        some = lambda: zip(self.random.choices(words, weights, k=4), self.random.choices(ends, k=4))
        phrases = ["".join(word + end for word, end in some()) for _ in range(4000)]
        self.pool = "".join(self.random.choices(phrases, [1 / (n + 20) for n in range(len(phrases))], k=120_000))

    def take(self, length):
        """That many bytes, from anywhere: other files have the same words, none the same text nearby."""
        start = self.random.randrange(len(self.pool) - length)
        return self.pool[start:start + length]

    def some(self, mean):
        return self.take(int(self.random.uniform(0.1, 1.9) * mean))


def many_files(context):
    text = Text(1)
    write(context, "Dockerfile", "FROM busybox\nCOPY tree /tree\nRUN find /tree -type f | wc -l > /count\n")
    for n in range(20_000):
        write(context, f"tree/d{n // 1000:02}/e{n // 50 % 20:02}/file{n:05}.txt", text.some(6300))


def edit_one_of_many(context, number):
    write(context, "tree/d07/e03/file07150.txt", f"edited {number}\n")


def six_stages(context):
    stages = "".join(f"FROM busybox AS s{n}\nRUN sleep 2 && seq {n} 30000 | sha256sum > /out{n}\n" for n in range(6))
    write(context, "Dockerfile", stages + "FROM busybox\n" + "".join(f"COPY --from=s{n} /out{n} /\n" for n in range(6)))


def debian(context):
    write(context, "Dockerfile", "FROM debian:stable-slim\nCOPY run.sh /usr/local/bin/run.sh\n"
          "RUN chmod 755 /usr/local/bin/run.sh && run.sh\nRUN echo done > /etc/done\n")
    edit_script(context, "first")


def edit_script(context, number):
    write(context, "run.sh", f"#!/bin/sh\n# {number}\nls /usr/bin | sort > /etc/programs\n")


APPLICATION = """\
FROM debian:stable-slim AS deps
WORKDIR /deps
COPY packages.txt .
RUN while read name size; do mkdir -p lib/$name && seq 1 $size > lib/$name/index.txt; done < packages.txt

FROM deps AS build
WORKDIR /src
COPY . .
RUN find src -name '*.c' | sort | xargs awk '{ words += NF } /edited/ { print FILENAME ": " $0 } END { print words }' > words
RUN find src -name '*.c' | sort | xargs cat | gzip -1 > sources.gz && sha256sum sources.gz > sum

FROM debian:stable-slim
RUN useradd --system app
COPY --from=deps /deps/lib /app/lib
COPY --from=build /src/sources.gz /src/sum /src/words /app/
USER app
CMD ["cat", "/app/words"]
"""


def application(context):
    text = Text(2)
    write(context, "Dockerfile", APPLICATION)
    write(context, ".dockerignore", "node_modules\n.git\n**/*.log\n")
    write(context, "packages.txt", "".join(f"package{n:03} {n * 7 % 900 + 100}\n" for n in range(200)))
    for n in range(1500):
        write(context, f"src/module{n // 50:02}/file{n:04}.c", text.some(5000))
    for n in range(5000):
        write(context, f"node_modules/package{n // 20:03}/lib/file{n:04}.js", text.some(2000))


def edit_source(context, number):
    write(context, "src/module11/file0555.c", f"int edited_{number};\n")


def tiny_steps(context):
    write(context, "Dockerfile", "FROM busybox\n" + "".join(f"RUN echo {n} > /f{n}\n" for n in range(30)))


ALL = [
    Work("files", "COPY of 20,000 files (126 MB of text) and a RUN", many_files, edit_one_of_many,
         asked={COLD: (13.0, 3), SAME: (11.5, 0.12), EDITED: (19.0, 3), EMPTY: (28.2, 0.8)}),
    Work("stages", "six stages of `sleep 2`, joined", six_stages, jobs=6, asked={COLD: (5.8, 2.3), EMPTY: (1.5, 0.08)}),
    Work("debian", "Debian base, a COPY, two small RUNs", debian, edit_script,
         asked={COLD: (5.5, 2), SAME: (0.14, 0.03), EDITED: (0.56, 0.1), EMPTY: (7.8, 0.06)}),
    Work("application", "three-stage application, 1,500 sources, 5,000 ignored files", application, edit_source,
         asked={COLD: (14.8, 3.5), SAME: (0.85, 0.05), EDITED: (2.2, 0.7), EMPTY: (15.3, 0.3)}),
    Work("tiny", "30 tiny RUNs", tiny_steps, asked={SAME: (0.90, 0.04), EMPTY: (2.9, 0.2)}),
]
