import sys

from scenarios.bench import main

sys.exit(main())
