"""Settings of the test run."""

import os
import signal

from hypothesis import settings

# A gate must give one answer for one commit: the property tests draw the same examples every time. Whoever changes
# what they guard runs them with LAE_FAST_TEST_RANDOM=1, which draws new ones.
settings.register_profile("repeatable", derandomize=True, deadline=None)
settings.register_profile("random", deadline=None)
settings.load_profile("random" if os.environ.get("LAE_FAST_TEST_RANDOM") else "repeatable")

# A shell that starts the tests in the background has them ignore Ctrl-C, which some of them send.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)
