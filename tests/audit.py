"""The supply chain and the code, looked at by others' tools: bandit, deptry, pip-audit. Exit code 0 means clean.

Findings that do no harm are waived here, each for one file and with a reason. When the database of vulnerabilities
cannot be reached, or does not know a package, that is said: it is neither clean nor a failure.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
BIN = Path(sys.executable).parent

_LOCAL = "read from a directory or a pinned file that was verified by hash; local_files_only, no remote code"
WAIVED: Mapping[tuple[str, str], str] = {
    ("app/web/ui.py", "B106"): "what the browser keeps is sealed with the key of the server; this only names the store",
    ("eval/result_file.py", "B404"): "git is asked for the commit, with fixed arguments and without a shell",
    ("eval/result_file.py", "B603"): "git is asked for the commit, with fixed arguments and without a shell",
    ("eval/result_file.py", "B607"): "git is taken from PATH, as the person who runs the command would",
    ("eval/reliability/suite.py", "B314"): "the report was written a moment before by the pytest that was started here",
    ("eval/reliability/suite.py", "B405"): "the report was written a moment before by the pytest that was started here",
    ("eval/reliability/suite.py", "B404"): "pytest is started on the project's own tests, without a shell",
    ("eval/reliability/suite.py", "B603"): "pytest is started on the project's own tests, without a shell",
    ("finetune/base_model_info.py", "B615"): _LOCAL,
    ("llmrec/encoders/text.py", "B615"): _LOCAL,
    ("llmrec/storage/download.py", "B404"): "pip fetches one pinned wheel, with fixed arguments and without a shell",
    ("llmrec/storage/download.py", "B603"): "pip fetches one pinned wheel, with fixed arguments and without a shell",
    ("llmrec/storage/download.py", "B615"): "every file is checked against a pinned sha256 before it is used",
    ("llmrec/lm/base_models.py", "B615"): _LOCAL,
}


def bandit() -> list[str]:
    """Findings that are not waived, and waivers that nothing needs any more."""
    done = _run("bandit", "-q", "-f", "json", "-r", "llmrec", "app", "eval", "finetune")
    results = json.loads(done.stdout)["results"]
    found = {(Path(one["filename"]).as_posix(), one["test_id"]): one for one in results}
    new = [
        f"bandit: {file}:{one['line_number']}: {test} {one['issue_text'][:100]}"
        for (file, test), one in found.items()
        if (file, test) not in WAIVED
    ]
    return new + [
        f"bandit: the waiver of {test} in {file} is not needed" for file, test in WAIVED.keys() - found.keys()
    ]


def deptry() -> list[str]:
    """Imports that no requirement brings, and requirements that nothing imports."""
    done = _run("deptry", ".", "--no-ansi")
    if done.returncode == 0:
        return []
    return [f"deptry: {line}" for line in done.stderr.splitlines() if "DEP" in line] or [
        f"deptry: {done.stderr[-300:]}"
    ]


def vulnerabilities() -> tuple[list[str], str]:
    """Known vulnerabilities of the pinned versions, and what could not be asked ('' when all was)."""
    done = _run("pip-audit", "-r", "constraints.txt", "--no-deps", "--disable-pip", "-f", "json", "--timeout", "20")
    try:
        packages = json.loads(done.stdout)["dependencies"]
    except (ValueError, KeyError):
        last = (done.stderr.strip().splitlines() or [""])[-1][:160]
        return [], f"the database of vulnerabilities cannot be reached: {last}"
    found = [
        f"pip-audit: {one['name']} {one['version']}: {bad['id']}, fixed in {', '.join(bad['fix_versions']) or 'none'}"
        for one in packages
        for bad in one.get("vulns", ())
    ]
    unknown = [one["name"] for one in packages if "skip_reason" in one]
    if len(unknown) == len(packages):
        return found, f"the database of vulnerabilities knows none of the {len(packages)} packages: it was not reached"
    said = f"the database does not know {len(unknown)} of {len(packages)} pinned packages: {', '.join(unknown[:8])}"
    return found, said if unknown else ""


def _run(tool: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([str(BIN / tool), *arguments], cwd=ROOT, capture_output=True, text=True, check=False)


def main() -> int:
    """Run all three and print what they found."""
    bad, unasked = vulnerabilities()
    findings = [*bandit(), *deptry(), *bad]
    for line in findings:
        print(line)
    if unasked:
        print(f"NOT CHECKED: {unasked}")
    print(f"{len(findings)} findings; {len(WAIVED)} waived with a reason (tests/audit.py)")
    return int(bool(findings))


if __name__ == "__main__":
    sys.exit(main())
