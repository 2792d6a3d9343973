"""The modules of llm-blender 0.0.2, under their old names, for code written for it.

``llm_blender.__path__`` contains this folder, so that ``llm_blender.blender.blender_utils`` is found in it
(docs/decisions/0003-old-import-paths.md). The modules import each other relatively, which is correct both under the
names they run by and under the names that type checkers see.
"""

from __future__ import annotations

# Allow one path only: a module imported under two names would define each of its classes twice.
__path__.clear()
