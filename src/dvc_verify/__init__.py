"""Does a DVC pipeline repeat? Run it again from its commit, and compare every file it writes.

`dvc repro` overwrites the hashes in ``dvc.lock``, so whoever reruns a pipeline never sees whether
it came out the same; DVC's users have asked for a table of that since 2019 (treeverse/dvc#2050).
Here a commit is cloned into a temporary folder, in another locale, time zone and hash seed, without
any cache; every stage runs there, and each file is compared with what the committed ``dvc.lock``
says: the same bytes, or what differs.

It serves any pipeline of DVC 3 in a git repository, and needs git, DVC, ruamel.yaml and rich (which
DVC brings); with pyarrow, Parquet files are compared by value. It changes nothing in the repository
but ``.dvc/tmp/verify.log``. Files tracked by ``.dvc`` files are copied into the clone, since they
are read and not made. Three things it can't see: code that is imported from the repository because
it is installed there in editable mode, submodules, and deps above the repository, by a relative
path.
"""
