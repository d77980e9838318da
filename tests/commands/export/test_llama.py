"""How llama.cpp's server is asked, with another program in its place."""

import sys

import pytest

from unsloth_course.commands.export import llama

# It says that a connection can be used again, and hangs up where somebody does.
HANGS_UP = """\
import http.server, sys

class Answers(http.server.BaseHTTPRequestHandler):
    protocol_version, asked = "HTTP/1.1", False

    def do_GET(self):
        if self.asked:
            self.close_connection = True
            return
        self.asked = True
        self.send_response(200)
        self.send_header("Content-Length", "20")
        self.end_headers()
        self.wfile.write(b'{"eos_token": "end"}')

http.server.ThreadingHTTPServer(("127.0.0.1", int(sys.argv[sys.argv.index("--port") + 1])), Answers).serve_forever()
"""


@pytest.mark.skipif(sys.platform == "win32", reason="a script is no program there")
def test_each_question_has_a_connection_of_its_own(tmp_path, monkeypatch):
    program, file = tmp_path / "llama-server", tmp_path / "model.gguf"
    program.write_text(f"#!{sys.executable}\n{HANGS_UP}")
    program.chmod(0o755)
    file.touch()
    monkeypatch.setattr(llama, "folder", lambda: tmp_path)
    monkeypatch.setattr(llama.llama_cpp, "program", lambda folder, name: program)
    with llama.Llama(file) as server:
        assert [server.stop_text() for _ in range(3)] == ["end"] * 3
