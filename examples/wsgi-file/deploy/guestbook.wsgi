# As Apache's mod_wsgi reads it: a Python file that is no module, with the callable `application`.
from guestbook import app as application

application.config["BOOK"] = "visitors"
