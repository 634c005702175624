"""bm25s is imported without jax, which would take the GPU's memory."""

import subprocess
import sys
from pathlib import Path


def test_jax_is_not_imported(tmp_path: Path):
    """Though it is installed; afterwards it can be imported as ever."""
    package = tmp_path / "jax"
    package.mkdir()
    (package / "__init__.py").write_text("print('jax was imported')\n", encoding="utf-8")
    (package / "lax.py").write_text("def top_k(*_):\n    print('jax ran')\n", encoding="utf-8")
    program = (
        "from wherefrom.attribution.retrieval.lexical import write_lexical\n"
        "from pathlib import Path\n"
        f"write_lexical(['a word', 'another'], Path({str(tmp_path / 'index')!r}))\n"
        "import sys; assert 'bm25s' in sys.modules; print('built')\n"
        "import jax\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program],
        env={"PYTHONPATH": f"{tmp_path}:{Path.cwd()}"},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.splitlines() == ["built", "jax was imported"]
