"""The tests. A failed assert in what they share shows its values, as one in a test does."""

import pytest

pytest.register_assert_rewrite("tests.oracle")
