"""Paired folders by a YAML rule: regular expressions say which file is which half of which pair."""

from __future__ import annotations

import re
from typing import Annotated

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from pngmodel.errors import UserError
from tasks.datasets.records import Found, PairRecord, Unpaired
from tasks.stores.filesystem import join, list_files


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
    iso: int | None = Field(None, ge=1)
    split: str | None = Field(None, description="train, validation, ...")


class FolderRules(BaseModel):
    """One file of configs/datasets/: how to read a paired folder."""

    model_config = ConfigDict(extra="forbid")

    dataset: str = Field(pattern=r"^[a-z0-9_]+$", description="name of the dataset in tables")
    licence: str = Field(description="licence of the images, kept in every store made from them")
    noisy: PairPattern = Field(description="regular expression over paths of noisy images, with (?P<pair>...)")
    clean: PairPattern = Field(description="the same for clean images; groups scene, camera, iso are facts too")
    cases: list[Case] = Field(default_factory=list, description="facts by pair id; later ones overrule earlier ones")


class FolderAdapter:
    """Finds pairs under a folder or prefix by :class:`FolderRules`."""

    def __init__(self, rules: FolderRules, source: str = "rules") -> None:
        self.rules, self._rules_file = rules, source

    def find(self, source: str) -> Found:
        """List the pairs; see :class:`tasks.datasets.records.Adapter`."""
        noisy_rule, clean_rule = re.compile(self.rules.noisy), re.compile(self.rules.clean)
        sides: dict[str, dict[str, str]] = {}
        facts: dict[str, dict[str, str]] = {}
        rejected: list[Unpaired] = []
        for path in list_files(source):
            if noisy_rule.fullmatch(path) and clean_rule.fullmatch(path):
                raise UserError(f"{join(source, path)}: matches both 'noisy' and 'clean' of {self._rules_file}")
            for side, rule in (("noisy", noisy_rule), ("clean", clean_rule)):
                found = rule.fullmatch(path)
                if found is None:
                    continue
                pair = found["pair"]
                if side in sides.setdefault(pair, {}):
                    rejected.append(
                        Unpaired(path, f"a second {side} image for pair {pair!r}; {sides[pair][side]} is used")
                    )
                    continue
                sides[pair][side] = path
                facts.setdefault(pair, {}).update({k: v for k, v in found.groupdict().items() if v is not None})
        if not sides:
            raise UserError(f"{source}: no file matches the patterns 'noisy' or 'clean' of {self._rules_file}")
        records = []
        for pair, found_sides in sorted(sides.items()):
            missing = {"noisy", "clean"} - set(found_sides)
            if missing:
                there = next(iter(found_sides.values()))
                rejected.append(Unpaired(pair, f"{missing.pop()} image is missing beside {there}"))
                continue
            records.append(self._record(source, pair, found_sides, facts[pair]))
        return Found(records, rejected)

    def _record(self, source: str, pair: str, sides: dict[str, str], groups: dict[str, str]) -> PairRecord:
        merged: dict[str, str | int | None] = {
            "scene": groups.get("scene", pair),
            "camera": groups.get("camera"),
            "iso": int(groups["iso"]) if groups.get("iso", "").isdigit() else None,
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
            noisy=join(source, sides["noisy"]),
            clean=join(source, sides["clean"]),
            licence=self.rules.licence,
            split=str(merged["split"]),
        )
