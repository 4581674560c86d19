"""A Docker daemon for as long as it is used: scripts/docker, which removes every trace of it."""
import contextlib, os, subprocess

SCRIPT = os.path.join(os.path.dirname(os.path.realpath(__file__)), "docker")


class NoDaemon(Exception):
    """Why there cannot be a daemon here."""


class Daemon:
    def __init__(self, folder):
        # Its containers' control groups are in a group of this name.
        self.group = os.path.basename(folder)
        # Debian's client: another one may come first in $PATH.
        self.client = ["env", f"DOCKER_CONFIG={folder}/config", "/usr/bin/docker", "-H", f"unix://{folder}/sock"]

    def __call__(self, *args, **more):
        """Runs the client, which must succeed, and gives what it printed."""
        done = subprocess.run([*self.client, *args], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True, check=True, **more)
        return done.stdout.strip()


@contextlib.contextmanager
def daemon(*flags):
    process = subprocess.Popen([SCRIPT, *flags], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, start_new_session=True)
    try:
        said = process.stdout.readline().strip()
        if not said.startswith("ready "):
            raise NoDaemon(said)
        yield Daemon(said.split(" ", 1)[1])
    finally:
        process.stdin.close()
        process.wait()
