"""What knows of notebooks: building them, the learner's workspace, and what they import (``kit``)."""
