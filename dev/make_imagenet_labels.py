"""Writes crates/dinov3/data/imagenet1k.txt: the 1000 ImageNet-1k classes in the order of every ImageNet classifier.

The order is that of the sorted WordNet 3.0 synset ids, the names are the synsets' lemmas; both as timm ships them.

    python dev/make_imagenet_labels.py            (needs timm)
"""

from pathlib import Path

from timm.data import ImageNetInfo

TARGET = Path(__file__).resolve().parents[1] / "crates/dinov3/data/imagenet1k.txt"
HEADER = """\
# The 1000 classes of ImageNet-1k (ILSVRC 2012) in class order: WordNet synset id, tab, names.
# Made by dev/make_imagenet_labels.py from the WordNet 3.0 lemmas that timm 1.0.31 lists.
#
# WordNet Release 3.0. This software and database is being provided to you, the LICENSEE, by Princeton University under
# the following license. By obtaining, using and/or copying this software and database, you agree that you have read,
# understood, and will comply with these terms and conditions.: Permission to use, copy, modify and distribute this
# software and database and its documentation for any purpose and without fee or royalty is hereby granted, provided
# that you agree to comply with the following copyright notice and statements, including the disclaimer, and that the
# same appear on ALL copies of the software, database and documentation, including modifications that you make for
# internal use or for distribution. WordNet 3.0 Copyright 2006 by Princeton University. All rights reserved. THIS
# SOFTWARE AND DATABASE IS PROVIDED "AS IS" AND PRINCETON UNIVERSITY MAKES NO REPRESENTATIONS OR WARRANTIES, EXPRESS OR
# IMPLIED. BY WAY OF EXAMPLE, BUT NOT LIMITATION, PRINCETON UNIVERSITY MAKES NO REPRESENTATIONS OR WARRANTIES OF
# MERCHANTABILITY OR FITNESS FOR ANY PARTICULAR PURPOSE OR THAT THE USE OF THE LICENSED SOFTWARE, DATABASE OR
# DOCUMENTATION WILL NOT INFRINGE ANY THIRD PARTY PATENTS, COPYRIGHTS, TRADEMARKS OR OTHER RIGHTS. The name of Princeton
# University or Princeton may not be used in advertising or publicity pertaining to distribution of the software and/or
# database. Title to copyright in this software, database and any associated documentation shall at all times remain
# with Princeton University and LICENSEE agrees to preserve same.
"""


def main() -> None:
    info = ImageNetInfo("imagenet1k")
    synsets = info.label_names()
    # The class order of ImageNet-1k is the order of the ids.
    assert len(synsets) == 1000 and synsets == sorted(synsets)
    lines = [f"{synset}\t{info.label_name_to_description(synset, detailed=False)}\n" for synset in synsets]
    TARGET.write_text(HEADER + "".join(lines))


if __name__ == "__main__":
    main()
