"""schemathesis: requests that the description allows and requests that it doesn't."""

import os
import subprocess
import sys
import tempfile
import unittest

import server

HERE = os.path.dirname(os.path.abspath(__file__))
EXAMPLES = 8 if server.QUICK else 40


class Description(unittest.TestCase):
    def test_the_server_does_what_it_describes(self):
        runs = server.Server("--extract-cpu-ms", "200")
        with server.Origin() as origin, runs as running, tempfile.TemporaryDirectory() as folder:
            command = [
                sys.executable, "-m", "schemathesis.cli", "--config-file", os.path.join(HERE, "schemathesis.toml"),
                "run", f"{running.url}/openapi.json", "--max-examples", str(EXAMPLES), "--no-color",
            ]
            environment = {**os.environ, "SCHEMATHESIS_HOOKS": "hooks", "PYTHONPATH": HERE}
            environment |= {"TEST_ORIGIN": origin.url, "TEST_SERVER": running.url}
            done = subprocess.run(command, env=environment, cwd=folder, capture_output=True, text=True, timeout=900, check=False)
            told = f"{done.stdout[-12000:]}\n{done.stderr[-2000:]}\n{running.output()[-2000:]}"
            self.assertEqual(done.returncode, 0, told)
            self.assertTrue(running.alive())
        print(done.stdout.strip().splitlines()[-1])


if __name__ == "__main__":
    unittest.main()
