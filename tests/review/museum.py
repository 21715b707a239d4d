"""docs/museum.md, of deepnet_edu/review/museum.toml: ``python -m tests.review.museum``."""

from deepnet_edu.course.places import DOCS
from deepnet_edu.files import write_atomic
from deepnet_edu.review.museum import rooms

PAGE = DOCS / "museum.md"
HEAD = """\
# The bug museum

The ways in which a model departs from DeepNorm, `norm(alpha * x + f(x))` with weights of gain β. Each finding of
[review](review.md) names its room here. Where it says "Published", it was found in public code or papers, at the commit
named, and may be fixed by now. [Lesson 09](../lessons/09_bug_museum.ipynb) builds most of these bugs, and the
instruments that see them.
"""


def page() -> str:
    """The page as it should be; an anchor is the room's slug."""
    parts = [HEAD]
    for slug, room in rooms().items():
        parts.append(f'<a id="{slug}"></a>\n\n## {room.title}\n\n{room.text}\n\n**What to do.** {room.repair}\n')
        if room.published:
            parts.append(f"**Published.** {room.published}\n")
    return "\n".join(parts)


if __name__ == "__main__":
    write_atomic(PAGE, page())
