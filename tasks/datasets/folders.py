"""Paired folders by a YAML rule: regular expressions say which file is which half of which pair."""

from __future__ import annotations

import re
from typing import Annotated, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from pngmodel.errors import UserError
from tasks.configuration import parse_yaml
from tasks.datasets.archives import read_whole
from tasks.datasets.imagefile import EXTENSIONS
from tasks.datasets.naming import NOT_STATED, dataset_name, iso_of
from tasks.datasets.pairing import CONVENTIONS, Pairing, by_convention
from tasks.datasets.records import Found, PairRecord
from tasks.datasets.source import Source

RULES = "dataset.yaml"


def _pattern(text: str) -> str:
    try:
        re.compile(text)
    except re.error as error:
        raise ValueError(f"is not a regular expression ({error})") from None
    return text


def _pairing(text: str) -> str:
    if "pair" not in re.compile(_pattern(text)).groupindex:
        raise ValueError("needs a group (?P<pair>...) that both images of a pair share")
    return text


Pattern = Annotated[str, AfterValidator(_pattern)]
PairPattern = Annotated[str, AfterValidator(_pairing)]


class Case(BaseModel):
    """Facts about the pairs whose id matches."""

    model_config = ConfigDict(extra="forbid")

    match: Pattern = Field(description="regular expression over the whole pair id")
    scene: str | None = Field(None, description="scene; default: the group (?P<scene>...) or the pair id")
    camera: str | None = None
    iso: int | None = Field(None, ge=1, le=10_000_000)
    split: str | None = Field(None, description="train, validation, ...")


class FolderRules(BaseModel):
    """One file of configs/datasets/: how to read a paired folder."""

    model_config = ConfigDict(extra="forbid")

    dataset: str = Field(pattern=r"^[a-z0-9_]+$", description="name of the dataset in tables")
    licence: str = Field(description="licence of the images, kept in every store made from them")
    noisy: PairPattern = Field(description="regular expression over paths of noisy images, with (?P<pair>...)")
    clean: PairPattern = Field(description="the same for clean images; groups scene, camera, iso are facts too")
    dtype: Literal["uint8", "uint16", "float32"] | None = Field(
        None, description="what every image must be, e.g. uint8; default: whatever both sides of a pair agree on"
    )
    cases: list[Case] = Field(default_factory=list, description="facts by pair id; later ones overrule earlier ones")


class FolderAdapter:
    """Finds pairs under a folder or prefix by :class:`FolderRules`."""

    def __init__(self, rules: FolderRules, rules_file: str = "rules") -> None:
        self.rules, self._rules_file = rules, rules_file

    def find(self, source: Source) -> Found:
        """List the pairs; see :class:`tasks.datasets.records.Adapter`."""
        patterns = {"noisy": re.compile(self.rules.noisy), "clean": re.compile(self.rules.clean)}
        pairing, found = Pairing(), Found()
        facts: dict[str, dict[str, str]] = {}
        found_any = any(p.fullmatch(path) for path in source.files for p in patterns.values())
        top = "" if found_any else source.top  # an archive of a folder, and rules for what is in that folder
        for path in source.files:
            name = path.removeprefix(top)
            matches = {side: m for side, pattern in patterns.items() if (m := pattern.fullmatch(name))}
            if not matches:
                found.ignored.append(path)
            elif len(matches) > 1:
                raise UserError(f"{source.uri(path)}: matches both 'noisy' and 'clean' of {self._rules_file}")
            for side, match in matches.items():
                pairing.add(match["pair"], side, path)
                groups = {k: v for k, v in match.groupdict().items() if v is not None}
                facts.setdefault(match["pair"], {}).update(groups)
        if not pairing:
            raise UserError(f"{source.url}: no file matches the patterns 'noisy' or 'clean' of {self._rules_file}")
        for pair, noisy, clean in pairing.complete():
            found.records.append(self._record(pair, source.uri(noisy), source.uri(clean), facts[pair]))
        found.rejected.extend(pairing.rejected)
        return found

    def _record(self, pair: str, noisy: str, clean: str, groups: dict[str, str]) -> PairRecord:
        merged: dict[str, str | int | None] = {
            "scene": groups.get("scene", pair),
            "camera": groups.get("camera"),
            "iso": iso_of(groups.get("iso")),
            "split": "train",
        }
        for case in self.rules.cases:
            if re.fullmatch(case.match, pair):
                merged |= {k: v for k, v in case.model_dump(exclude={"match"}).items() if v is not None}
        iso = merged["iso"]
        return PairRecord(
            pair=pair,
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


class Folders:
    """Paired folders without a rule file: by the names that the field usually gives (or ``dataset.yaml`` inside)."""

    def find(self, source: Source) -> Found:
        """List the pairs; see :class:`tasks.datasets.records.Adapter`."""
        if (rules := f"{source.top}{RULES}") in source.files:
            uri = source.uri(rules)
            return FolderAdapter(parse_yaml(read_whole(uri), FolderRules, uri), uri).find(source)
        pairing, unnamed = by_convention([p for p in source.files if p.lower().endswith(EXTENSIONS)])
        found = Found(ignored=[*(p for p in source.files if not p.lower().endswith(EXTENSIONS)), *unnamed])
        if not pairing:
            raise UserError(
                f"{source.url}: no pairs found by their names; expected {CONVENTIONS}, or give a YAML rule file "
                "as --adapter (see configs/datasets/)"
            )
        for pair, noisy, clean in pairing.complete():
            found.records.append(
                PairRecord(
                    pair=pair,
                    dataset=dataset_name(source),
                    scene=pair,
                    camera=None,
                    iso=None,
                    noisy=source.uri(noisy),
                    clean=source.uri(clean),
                    licence=NOT_STATED,
                )
            )
        found.rejected.extend(pairing.rejected)
        return found
