"""Makes type stubs for fabric_protos, which ships none, from the descriptors inside its modules."""

from __future__ import annotations

import importlib
import pkgutil
import re
import subprocess
import sys
from pathlib import Path

from google.protobuf import descriptor_pool
from google.protobuf.compiler import plugin_pb2

ROOT = Path(__file__).resolve().parent.parent
TARGET = ROOT / "typings"


def stubs() -> dict[Path, str]:
    """The stub text of every message module, by path below the target folder."""
    import fabric_protos

    request = plugin_pb2.CodeGeneratorRequest(parameter="readable_stubs,quiet")
    seen: dict[str, None] = {}

    def add(name: str) -> None:
        if name in seen:
            return
        file = descriptor_pool.Default().FindFileByName(name)
        seen[name] = None
        for dependency in file.dependencies:
            add(dependency.name)
        file.CopyToProto(request.proto_file.add())

    modules = [
        module.name
        for module in pkgutil.walk_packages(fabric_protos.__path__, "fabric_protos.")
        if module.name.endswith("_pb2")
    ]
    for name in sorted(modules):
        file_name: str = importlib.import_module(name).DESCRIPTOR.name
        add(file_name)
        request.file_to_generate.append(file_name)
    plugin = Path(sys.executable).with_name("protoc-gen-mypy")
    output = subprocess.run([plugin], input=request.SerializeToString(), stdout=subprocess.PIPE, check=True).stdout
    response = plugin_pb2.CodeGeneratorResponse.FromString(output)
    if response.error:
        raise SystemExit(f"protoc-gen-mypy: {response.error}")
    # The modules live below fabric_protos although their descriptors are named without that prefix.
    ours = sorted({name.split("/")[0] for name in request.file_to_generate})
    prefix = re.compile(rf"^(from|import) ({'|'.join(ours)})\b", re.MULTILINE)
    result = {Path("fabric_protos/__init__.pyi"): ""}
    for file in response.file:
        path = Path("fabric_protos") / file.name
        result[path] = prefix.sub(r"\1 fabric_protos.\2", file.content)
        for parent in path.parents:
            if parent != Path("."):
                result.setdefault(parent / "__init__.pyi", "")
    return result


def main() -> None:
    check = "--check" in sys.argv
    stale = []
    for path, text in stubs().items():
        target = TARGET / path
        if check:
            if not target.exists() or target.read_text() != text:
                stale.append(str(path))
        else:
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_text(text)
    if stale:
        raise SystemExit("stubs differ from the installed descriptors, run scripts/stubs: " + ", ".join(stale))


if __name__ == "__main__":
    main()
