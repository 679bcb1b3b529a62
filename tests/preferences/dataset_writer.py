"""A process that writes both tables of a dataset until it is killed; it prints what is
acknowledged.
"""

from __future__ import annotations

import sys

from rlhp.preferences.dataset import PreferenceDataset
from tests.preferences.dataset_samples import answer, segment


def write_for_ever(path: str) -> None:
    """Print `segment ID` and `event ID` once they are durable."""
    dataset = PreferenceDataset.open(path)
    number = len(dataset.segment_ids())
    while True:
        first, second = segment(number), segment(number + 1)
        dataset.add_segments([first, second])
        print("segment", first.id, flush=True)
        print("segment", second.id, flush=True)
        row = answer(first, second)
        dataset.add_events([row])
        print("event", row.query_id, flush=True)
        number += 2


if __name__ == "__main__":
    write_for_ever(sys.argv[1])
