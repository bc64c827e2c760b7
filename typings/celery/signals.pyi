from typing import Any

before_task_publish: Any
