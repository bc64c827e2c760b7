from typing import Any

before_task_publish: Any
task_prerun: Any
task_postrun: Any
