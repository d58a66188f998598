"""How a snippet of the README becomes a receiver that runs: the only place that knows what each lacks for that.

Each finds `secret`, or `keys` where it verifies v1a, and `store`, somebody's table with a unique key: here a file, with
a line for each new id.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from judging import node, python
from snippets import go_program, snippet

STANDARDWEBHOOKS_GO = "v0.0.1"

_PYTHON = """\
{snippet}
seen = set()

def store(webhook_id, event):
    if webhook_id not in seen:
        seen.add(webhook_id)
        with open({stored!r}, "a") as file:
            print(webhook_id, event["type"], file=file)

def judge(key, body, headers):
    global {name}
    {name} = {read}(key)
    receive(headers, body)
"""

_NODE = """\
import {{ appendFileSync }} from "node:fs";
{snippet}
const seen = new Set();
const store = async (id, event) => {{
  if (seen.size < seen.add(id).size) appendFileSync("{stored}", `${{id}} ${{event.type}}\\n`);
}};
let {name};
const judge = (key, body, headers) => {{
  {name} = {read}(key);
  return receive(headers, body);
}};
"""

_GO = """\
package main

import (
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
)

{snippet}

var secret = os.Args[1]
var seen = map[string]bool{{}}

func store(id string, body []byte) error {{
	var event struct{{ Type string }}
	err := json.Unmarshal(body, &event)
	if err != nil || seen[id] {{
		return err
	}}
	seen[id] = true
	file, err := os.OpenFile("{stored}", os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o600)
	if err == nil {{
		fmt.Fprintln(file, id, event.Type)
		err = file.Close()
	}}
	return err
}}

func main() {{
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {{
		panic(err)
	}}
	fmt.Println(listener.Addr().(*net.TCPAddr).Port)
	panic(http.Serve(listener, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {{
		body, err := io.ReadAll(r.Body)
		if err == nil {{
			err = receive(r.Header, body)
		}}
		if err != nil {{
			http.Error(w, err.Error(), http.StatusBadRequest)
			return
		}}
		w.WriteHeader(http.StatusNoContent)
	}})))
}}
"""


def command(language: str, secret: str, folder: Path) -> Sequence[str]:
    """What runs the README's receiver in that language, at `POST /0`; it stores in `folder / "stored"`."""
    return _LANGUAGES[language](snippet("receiver", language), secret, folder)


def command_v1a(language: str, keys: str, folder: Path) -> Sequence[str]:
    """The same for the receiver of `v1a`; `keys` is the JSON of a JWK set's member of that name."""
    text = snippet("receiver v1a", language)
    if language == "python":
        return python(
            _PYTHON.format(snippet=text, stored=str(folder / "stored"), name="keys", read="json.loads"), [keys]
        )
    return node(_NODE.format(snippet=text, stored=folder / "stored", name="keys", read="JSON.parse"), [keys], folder)


def _python(text: str, secret: str, folder: Path) -> Sequence[str]:
    return python(_PYTHON.format(snippet=text, stored=str(folder / "stored"), name="secret", read="str"), [secret])


def _node(text: str, secret: str, folder: Path) -> Sequence[str]:
    return node(_NODE.format(snippet=text, stored=folder / "stored", name="secret", read="String"), [secret], folder)


def _go(text: str, secret: str, folder: Path) -> Sequence[str]:
    requirement = f"github.com/standard-webhooks/standard-webhooks/libraries {STANDARDWEBHOOKS_GO}"
    return [*go_program(_GO.format(snippet=text, stored=folder / "stored"), requirement, folder), secret]


_LANGUAGES = {"python": _python, "node": _node, "go": _go}
LANGUAGES = tuple(_LANGUAGES)
