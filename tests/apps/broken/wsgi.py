"""An app that cannot be imported."""

import a_module_that_nobody_has  # type: ignore[import-not-found]  # the point of it

application = a_module_that_nobody_has.application
