"""The README's examples, run as they stand."""

import os
import re
import shutil
import socket
import subprocess
import tempfile
import unittest

import server


ULID = r"\b[0-7][0-9A-HJKMNP-TV-Z]{25}\b"


def section(begin, end):
    """The README from a heading to the next one of that kind."""
    with open(os.path.join(server.ROOT, "README.md"), encoding="utf-8") as readme:
        return readme.read().split(f"\n{begin}\n", 1)[1].split(f"\n{end}", 1)[0]


def blocks():
    """The fenced blocks of the section, by language."""
    found = re.findall(r"^```(\w+)\n(.*?)^```$", section("### Examples", "### "), re.MULTILINE | re.DOTALL)
    return dict(found)


def tour():
    """Of each block of the tour that shows commands: those, and the lines that they print."""
    shown = re.findall(r"^```\n(\$ .*?)^```$", section("## In sixty seconds", "## "), re.MULTILINE | re.DOTALL)
    for block in shown:
        lines = block.splitlines()
        commands = [line.removeprefix("$ ") for line in lines if line.startswith("$ ")]
        yield commands, [line for line in lines if not line.startswith("$ ")]


def is_free(port):
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True


def needs(tool):
    """Skips a test where its tool is missing; in CI, where everything is installed, that is a failure."""
    missing = not shutil.which(tool) and not os.environ.get("CI")
    return unittest.skipIf(missing, f"there is no {tool}")


class Examples(unittest.TestCase):
    CORES = (2,)  # the server has as many as its machine, as it would by the README

    @classmethod
    def setUpClass(cls):
        # The README's ports where they are free, so that the examples run as they stand; else others.
        cls.origin = server.Process([server.LOADTEST, "origin", "--addr", f"127.0.0.1:{8098 if is_free(8098) else 0}"])
        cls.addClassCleanup(cls.origin.stop)
        serve = ["serve", "--listen", f"127.0.0.1:{8080 if is_free(8080) else 0}"]
        serve += ["--egress-allow", "127.0.0.1"]
        cls.server = server.Process([server.FOREBAY, *serve])
        cls.addClassCleanup(cls.server.stop)
        server.Server.wait_ready(cls.server)
        ports = {"8098": str(cls.origin.port), "8080": str(cls.server.port)}
        there = lambda text: re.sub(r"(?<=127\.0\.0\.1:)(8098|8080)\b", lambda found: ports[found[0]], text)
        cls.there = staticmethod(there)
        cls.blocks = {name: there(text) for name, text in blocks().items()}

    def run_example(self, name, suffix, *command):
        with tempfile.TemporaryDirectory() as folder:
            path = os.path.join(folder, f"example{suffix}")
            with open(path, "w", encoding="utf-8") as file:
                file.write(self.blocks[name])
            done = None
            for step in command:
                step = [part.format(path=path, folder=folder) for part in step]
                done = subprocess.run(step, capture_output=True, text=True, timeout=120, check=False)
                self.assertEqual(done.returncode, 0, done.stderr)
            return done.stdout

    @needs("jq")
    def test_the_tour_prints_what_it_shows(self):
        """But for the stream's id, which is another each time."""
        before, ids, blocks = [], {}, list(tour())
        self.assertEqual(len(blocks), 2)
        for commands, expected in blocks:
            before += commands
            *setting, last = before
            command = self.there("\n".join([line for line in setting if not line.startswith("curl")] + [last]))
            for shown, real in ids.items():
                command = command.replace(shown, real)
            done = subprocess.run(["bash", "-c", command], capture_output=True, text=True, timeout=60, check=False)
            printed = done.stdout.splitlines()
            expected = [self.there(line) for line in expected]
            self.assertEqual(len(printed), len(expected), done.stdout + done.stderr)
            for real, shown in zip(printed, expected):
                ids.update(zip(re.findall(ULID, shown), re.findall(ULID, real)))
                self.assertEqual(re.sub(ULID, "id", real), re.sub(ULID, "id", shown))

    def test_curl(self):
        text = self.run_example("sh", ".sh", ["sh", "{path}"])
        self.assertIn('"type":"summary"', text)
        self.assertIn('"successful":1', text)

    def test_python(self):
        text = self.run_example("python", ".py", ["python3", "{path}"])
        self.assertTrue(text.endswith("5 of 5\n"), text)

    @needs("node")
    def test_javascript(self):
        text = self.run_example("javascript", ".mjs", ["node", "{path}"])
        self.assertTrue(text.endswith("5 of 5\n"), text)

    @needs("rustc")
    def test_rust(self):
        build = ["rustc", "--edition", "2024", "-o", "{folder}/example", "{path}"]
        text = self.run_example("rust", ".rs", build, ["{folder}/example"])
        self.assertTrue(text.startswith('{"type":"metadata"'), text[:200])
        self.assertIn('"successful":1', text)

    def test_each_language_has_its_example(self):
        self.assertEqual(set(self.blocks), {"sh", "python", "javascript", "rust"})
