"""`python -m hmac_file_server`."""

import sys

from hmac_file_server.cli import main

if __name__ == "__main__":
    sys.exit(main())
