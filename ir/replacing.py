"""Files that belong together are put in place all or not at all, also when the process is killed in between.

A folder beside them is the journal. It takes the new files (into `coming`), then the old ones (into `old`), and then
`coming` is renamed to `new`: until then a killed replacement is taken back, from then on it is carried out. Either way
whoever finds the journal only moves what it holds to where nothing is.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

_COMING, _NEW, _OLD = "coming", "new", "old"


@dataclass(frozen=True)
class Replacement:
    """A journal: an empty folder of one's own, in the folder where the files go."""

    folder: Path

    def carry_out(self, built: Mapping[Path, Path]) -> None:
        """Move files, or one folder, to their places. `built` says what goes where; where it is not there the place
        is left empty. The last place is filled last and cleared first: where something lies there, all is there."""
        places = list(enumerate(reversed(list(built))))
        try:
            for number, place in places:
                if built[place].exists():
                    os.rename(built[place], self._slot(_COMING, number) / place.name)
            for number, place in places:
                if os.path.lexists(place):
                    os.rename(place, self._slot(_OLD, number) / place.name)
            os.rename(self.folder / _COMING, self.folder / _NEW)
            self.settle()
        except BaseException:
            self._take_back(places)
            raise

    def settle(self) -> None:
        """Finish what was begun, one way or the other. Where something else lies by now, that stays, and this goes."""
        new = self.folder / _NEW
        held = {path: self.folder.parent / path.name for path in _held(new if new.is_dir() else self.folder / _OLD)}
        if not any(os.path.lexists(place) for place in held.values()):
            for path, place in held.items():
                os.rename(path, place)
        if new.is_dir() and (self.folder / _OLD).is_dir():
            shutil.rmtree(self.folder / _OLD)  # before `new` goes, without which it would come back

    def _take_back(self, places: list[tuple[int, Path]]) -> None:
        """The places as they were before."""
        new = self.folder / _NEW
        if new.is_dir():
            for number, place in places:
                slot = new / str(number)
                if slot.is_dir() and not any(slot.iterdir()):
                    os.rename(place, slot / place.name)
            os.rename(new, self.folder / _COMING)
        self.settle()

    def _slot(self, part: str, number: int) -> Path:
        """A folder for one file, so that its name can be as long as names can be."""
        slot = self.folder / part / str(number)
        slot.mkdir(parents=True)
        return slot


def _held(folder: Path) -> Iterator[Path]:
    """What lies in the slots of a folder; the last place has number 0."""
    slots = sorted(folder.iterdir(), key=lambda slot: -int(slot.name)) if folder.is_dir() else []
    for slot in slots:
        yield from slot.iterdir()
