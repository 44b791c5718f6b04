"""Write the golden files anew: ``python -m tests.golden``. Review the difference before it is committed."""

import shutil

from pgevents.format import codec_names
from tests.golden.case import FOLDER, golden_files

for name in codec_names():
    folder = FOLDER / name
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    for file, content in golden_files(name):
        (folder / file).write_bytes(content)
