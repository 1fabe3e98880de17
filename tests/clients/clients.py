"""The generated clients: by which command each is generated, how it is compiled, and the program that tries it."""

import os
import shutil
import sys
from abc import ABC, abstractmethod
from pathlib import Path

from tests.clients import tools
from tests.support import toolchains
from tests.support.processes import ROOT

HERE = Path(__file__).parent
OPEN = "disallowAdditionalPropertiesIfNotPresent=false"
"""Of openapi-generator: a member that a later server adds is no error."""
OPENER = "enumUnknownDefaultCase=true"
"""The same for a value of an enumeration, for the languages that it can be had for."""


class Client(ABC):
    """One generator's client for one language, in a folder in which `openapi.yaml` stands."""

    language: str
    generator: str
    program: Path
    example: str
    """The name of the file that docs/clients.md shows."""

    @property
    def name(self) -> str:
        """What transcripts call it."""
        return f"{self.language} ({self.generator})"

    @property
    @abstractmethod
    def command(self) -> list[str]:
        """The command that generates it, as docs/clients.md tells it."""

    @abstractmethod
    def need(self) -> None:
        """Raise `Missing` unless everything that it needs is there."""

    def generate(self, folder: Path) -> None:
        """Generate it. Raises `Failed`."""
        command = [tools.generator(self.command[0]), *self.command[1:]]
        # the generator's own Java, and the formatter of its Python, stand beside it
        path = f"{tools.GENERATORS / 'bin'}{os.pathsep}{os.environ['PATH']}"
        said = tools.call("generating", command, folder, {"PATH": path})
        if "Warning(s) encountered" in said or "not supported" in said:
            raise tools.Failed(f"generating: {self.generator} left something out:\n{said[-3000:]}")

    @abstractmethod
    def compile(self, folder: Path, *programs: Path) -> None:
        """Compile it with programs that use it. Raises `Failed`."""

    @abstractmethod
    def run(self, folder: Path, program: Path, env: dict[str, str]) -> str:
        """Run a program and return what it prints. Raises `Failed`."""


class _Python(Client):
    language = "python"

    def need(self) -> None:
        tools.generator(self.command[0])
        tools.client_python()

    def compile(self, folder: Path, *programs: Path) -> None:
        for program in programs:
            shutil.copy(program, folder)
        options = "--strict --follow-imports=silent --config-file= --cache-dir=.cache --python-executable"
        command = [sys.executable, "-m", "mypy", *options.split(), tools.client_python()]
        tools.call("checking the types", [*command, *(program.name for program in programs)], folder)

    def run(self, folder: Path, program: Path, env: dict[str, str]) -> str:
        return tools.call("running", [tools.client_python(), "-W", "error", program.name], folder, env)


class OpenapiPythonClient(_Python):
    """httpx and attrs, sync and async."""

    generator = "openapi-python-client"
    program = HERE / "python" / "openapi_python_client.py"
    example = "with_openapi_python_client.py"

    @property
    def command(self) -> list[str]:
        options = "--path openapi.yaml --meta none --output-path hurlbat_client"
        return ["openapi-python-client", "generate", *options.split()]


class OpenapiGeneratorPython(_Python):
    """urllib3 and pydantic."""

    generator = "openapi-generator"
    program = HERE / "python" / "openapi_generator.py"
    example = "with_openapi_generator.py"

    @property
    def command(self) -> list[str]:
        return _openapi_generator("python", ".", "packageName=hurlbat_client")


class OpenapiTypescript(Client):
    """Types for openapi-fetch."""

    language = "typescript"
    generator = "openapi-typescript"
    program = HERE / "typescript" / "client.ts"
    example = "example.ts"

    @property
    def command(self) -> list[str]:
        return ["npx", "openapi-typescript", "openapi.yaml", "--output", "hurlbat.d.ts"]

    def need(self) -> None:
        tools.node()

    def generate(self, folder: Path) -> None:
        try:
            packages = toolchains.node_project(HERE / "typescript") / "node_modules"
        except RuntimeError as error:
            raise tools.Failed(f"installing what tests/clients/typescript/package.json names: {error}") from error
        (folder / "node_modules").symlink_to(packages)
        for name in ("package.json", "tsconfig.json"):
            shutil.copy(HERE / "typescript" / name, folder)
        script = packages / "openapi-typescript" / "bin" / "cli.js"
        tools.call("generating", [tools.node(), str(script), *self.command[2:]], folder)

    def compile(self, folder: Path, *programs: Path) -> None:
        for program in programs:
            shutil.copy(program, folder)
        compiler = folder / "node_modules" / "typescript" / "bin" / "tsc"
        tools.call("compiling", [tools.node(), str(compiler), "--project", "."], folder)

    def run(self, folder: Path, program: Path, env: dict[str, str]) -> str:
        return tools.call("running", [tools.node(), f"made/{program.stem}.js"], folder, env)


class OpenapiGeneratorGo(Client):
    """net/http."""

    language = "go"
    generator = "openapi-generator"
    program = HERE / "go" / "main.go"
    example = "example.go"

    @property
    def command(self) -> list[str]:
        return _openapi_generator("go", "hurlbat", f"packageName=hurlbat,withGoMod=false,enumClassPrefix=true,{OPENER}")

    def need(self) -> None:
        tools.generator(self.command[0])
        tools.go()

    def compile(self, folder: Path, *programs: Path) -> None:
        for name in ("go.mod", "go.sum"):
            shutil.copy(HERE / "go" / name, folder)
        for program in programs:
            (folder / program.stem).mkdir()
            shutil.copy(program, folder / program.stem / "main.go")
            tools.call("compiling", [tools.go(), "build", "-o", f"made/{program.stem}", f"./{program.stem}"], folder)

    def run(self, folder: Path, program: Path, env: dict[str, str]) -> str:
        return tools.call("running", [str(folder / "made" / program.stem)], folder, env)


class OpenapiGeneratorJava(Client):
    """OkHttp and Gson."""

    language = "java"
    generator = "openapi-generator"
    program = HERE / "java" / "Client.java"
    example = "Example.java"
    _execute = "org.codehaus.mojo:exec-maven-plugin:3.5.0:java"

    @property
    def command(self) -> list[str]:
        packages = {"invoker": "io.hurlbat.client", "api": "io.hurlbat.client.api", "model": "io.hurlbat.client.model"}
        return _openapi_generator(
            "java", "client", ",".join([*(f"{kind}Package={name}" for kind, name in packages.items()), OPENER])
        )

    def need(self) -> None:
        tools.generator(self.command[0])
        tools.javac()
        tools.maven()

    def compile(self, folder: Path, *programs: Path) -> None:
        package = folder / "client" / "src" / "main" / "java" / "com" / "example"
        package.mkdir(parents=True)
        for program in programs:
            shutil.copy(program, package)
        tools.call("compiling", [tools.maven(), "-q", "-B", "-DskipTests", "compile"], folder / "client")

    def run(self, folder: Path, program: Path, env: dict[str, str]) -> str:
        main = f"-Dexec.mainClass=com.example.{program.stem}"
        return tools.call("running", [tools.maven(), "-q", "-B", self._execute, main], folder / "client", env)


CLIENTS: list[Client] = [
    OpenapiPythonClient(),
    OpenapiGeneratorPython(),
    OpenapiTypescript(),
    OpenapiGeneratorGo(),
    OpenapiGeneratorJava(),
]
LANGUAGES = list(dict.fromkeys(client.language for client in CLIENTS))


def contract_for(folder: Path) -> None:
    """Put the contract where the commands expect it."""
    shutil.copy(ROOT / "openapi.yaml", folder)


def _openapi_generator(name: str, output: str, properties: str) -> list[str]:
    options = f"generate -i openapi.yaml -g {name} -o {output} --additional-properties={properties},{OPEN}"
    return ["openapi-generator-cli", *options.split()]
