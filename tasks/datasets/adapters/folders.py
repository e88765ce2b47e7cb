"""Paired folders: YAML rules with regular expressions, or common naming conventions, assign files to pairs."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Annotated, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from pngmodel.errors import UserError
from tasks.datasets.adapters.naming import iso_of, unstated
from tasks.datasets.adapters.pairing import CONVENTIONS, Pairing, by_convention
from tasks.datasets.formats.archives import read_whole
from tasks.datasets.formats.image_file import EXTENSIONS
from tasks.datasets.records import Found, PairRecord, Unpaired
from tasks.datasets.source import Source
from tasks.runtime.configuration import parse_yaml

RULES = "dataset.yaml"


def _pattern(text: str) -> str:
    try:
        re.compile(text)
    except (re.error, OverflowError, RecursionError, MemoryError) as error:
        raise ValueError(f"is not a regular expression ({error})") from None
    return text


def _pairing(text: str) -> str:
    if "pair" not in re.compile(_pattern(text)).groupindex:
        raise ValueError("requires a group (?P<pair>...) that is equal for both images of a pair")
    return text


Pattern = Annotated[str, AfterValidator(_pattern)]
PairPattern = Annotated[str, AfterValidator(_pairing)]


def _shared(text: str) -> str:
    if "repeat" in re.compile(_pairing(text)).groupindex:
        raise ValueError("has a group (?P<repeat>...); use it only in 'noisy', whose repeats share one clean image")
    return text


CleanPattern = Annotated[str, AfterValidator(_shared)]
_Matched = tuple[str, dict[str, str]]  # path and values of its groups


class Case(BaseModel):
    """Metadata of the pairs whose id matches."""

    model_config = ConfigDict(extra="forbid")

    match: Pattern = Field(description="Regular expression that the whole group (?P<pair>...) must match.")
    scene: str | None = Field(
        None, description="Scene; default: the group (?P<scene>...), or else the group (?P<pair>...)."
    )
    camera: str | None = Field(None, description="Camera; default: the group (?P<camera>...).")
    iso: int | None = Field(None, ge=1, le=10_000_000, description="ISO value; default: the group (?P<iso>...).")
    split: str | None = Field(None, description="Split, e.g. train or validation.")


class FolderRules(BaseModel):
    """Rules of a paired folder: one file in configs/datasets/."""

    model_config = ConfigDict(extra="forbid")

    dataset: str = Field(pattern=r"^[a-z0-9_]+$", description="Name of the dataset in tables.")
    licence: str = Field(description="Licence of the images; kept in every store made from them.")
    noisy: PairPattern = Field(
        description="Regular expression for the paths of noisy images, with a group (?P<pair>...); files that "
        "differ only in a group (?P<repeat>...) share one clean image."
    )
    clean: CleanPattern = Field(
        description="Regular expression for the paths of clean images; groups scene, camera and iso are recorded, too."
    )
    dtype: Literal["uint8", "uint16", "float32"] | None = Field(
        None,
        description="Required data type of all images, e.g. uint8; default: the common type of both sides of a pair.",
    )
    cases: list[Case] = Field(
        default_factory=list, description="Facts about pairs by their id; later ones take precedence."
    )


class FolderAdapter:
    """Adapter of paired folders with :class:`FolderRules`."""

    def __init__(self, rules: FolderRules, rules_file: str = "rules") -> None:
        self.rules, self._rules_file = rules, rules_file

    def find(self, source: Source) -> Found:
        """List the pairs; see :class:`tasks.datasets.records.Adapter`."""
        patterns = {"clean": re.compile(self.rules.clean), "noisy": re.compile(self.rules.noisy)}
        found = Found()
        matched: dict[str, list[_Matched]] = {side: [] for side in patterns}
        found_any = any(p.fullmatch(path) for path in source.files for p in patterns.values())
        top = "" if found_any else source.top  # the archive has a top folder that the rules do not mention
        for path in source.files:
            name = path.removeprefix(top)
            matches = {side: m for side, pattern in patterns.items() if (m := pattern.fullmatch(name))}
            if not matches:
                found.ignored.append(path)  # including images, because rules may select a part of a folder
            elif len(matches) > 1:
                raise UserError(
                    f"{source.uri(path)}: matches both 'noisy' and 'clean' of {self._rules_file}; make one of them "
                    "stricter"
                )
            for side, match in matches.items():
                matched[side].append((path, {k: v for k, v in match.groupdict().items() if v is not None}))
        if not any(matched.values()):
            raise UserError(
                f"{source.url}: no file matches 'noisy' or 'clean' of {self._rules_file}; check these expressions"
            )
        pairing, facts = _repeated(matched["noisy"], matched["clean"])
        for key, noisy, clean in pairing.complete():
            found.records.append(self._record(key, source.uri(noisy), source.uri(clean), facts[key]))
        found.rejected.extend(pairing.rejected)
        return found

    def _record(self, key: str, noisy: str, clean: str, groups: dict[str, str]) -> PairRecord:
        merged: dict[str, str | int | None] = {
            "scene": groups.get("scene", groups["pair"]),
            "camera": groups.get("camera"),
            "iso": iso_of(groups.get("iso")),
            "split": "train",
        }
        for case in self.rules.cases:
            if re.fullmatch(case.match, groups["pair"]):
                merged |= {k: v for k, v in case.model_dump(exclude={"match"}).items() if v is not None}
        iso = merged["iso"]
        return PairRecord(
            pair=key,
            dataset=self.rules.dataset,
            scene=str(merged["scene"]),
            camera=None if merged["camera"] is None else str(merged["camera"]),
            iso=None if iso is None else int(iso),
            noisy=noisy,
            clean=clean,
            licence=self.rules.licence,
            split=str(merged["split"]),
            dtype=self.rules.dtype,
        )


def _repeated(noisy: Sequence[_Matched], clean: Sequence[_Matched]) -> tuple[Pairing, dict[str, dict[str, str]]]:
    """Pair files by id, with the clean image once per repeat of its noisy image; return the groups of each pair."""
    pairing = Pairing()
    ids: dict[str, list[str]] = {}  # ids of the pairs that share a clean image
    facts: dict[str, dict[str, str]] = {}
    for path, groups in noisy:
        key = f"{groups['pair']}:{groups['repeat']}" if "repeat" in groups else groups["pair"]
        if key not in facts:
            ids.setdefault(groups["pair"], []).append(key)
        facts.setdefault(key, groups)
        pairing.add(key, "noisy", path)
    for path, groups in clean:
        for key in ids.get(groups["pair"], [groups["pair"]]):
            facts[key] = groups | facts.get(key, {})
            pairing.add(key, "clean", path)
    return pairing, facts


class Folders:
    """Adapter of paired folders by naming conventions, or by the file ``dataset.yaml`` in the folder if present."""

    def find(self, source: Source) -> Found:
        """List the pairs; see :class:`tasks.datasets.records.Adapter`."""
        if (rules := f"{source.top}{RULES}") in source.files:
            uri = source.uri(rules)
            if source.archive is not None:
                # Archives are untrusted, and a malicious regular expression can run without end.
                raise UserError(
                    f"{uri}: rules inside an archive are not used; check them, extract them, and pass them with "
                    "--adapter"
                )
            return FolderAdapter(parse_yaml(read_whole(uri), FolderRules, uri), uri).find(source)
        pairing, unnamed = by_convention([p for p in source.files if p.lower().endswith(EXTENSIONS)])
        found = Found(ignored=[p for p in source.files if not p.lower().endswith(EXTENSIONS)])
        if not pairing:
            raise UserError(
                f"{source.url}: no pairs found by file names; expected {CONVENTIONS}, or pass a YAML rule file with "
                "--adapter (see configs/datasets/)"
            )
        found.rejected.extend(
            Unpaired(path, f"the name indicates neither noisy nor clean; expected {CONVENTIONS}") for path in unnamed
        )
        for pair, noisy, clean in pairing.complete():
            found.records.append(unstated(source, pair, source.uri(noisy), source.uri(clean)))
        found.rejected.extend(pairing.rejected)
        return found
