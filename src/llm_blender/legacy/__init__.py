"""What code written for llm-blender 0.0.2 imports, under the module names of that time.

``llm_blender.__path__`` names this folder, so that ``llm_blender.blender.blender_utils`` is found in it
(docs/decisions/0003-old-import-paths.md). Modules in here import each other relatively: that is right under the names
they run by, and under the ones that type checkers see.
"""

from __future__ import annotations

# No second way in: a module imported under two names would define each of its classes twice.
__path__.clear()
