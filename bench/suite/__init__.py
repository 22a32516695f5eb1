"""Suites: a YAML file is read and checked (`file.py`), its matrix expanded (`matrix.py`) into cases (`plan.py`)."""

from bench.suite.file import change_recipes, check_suite, check_suite_in_part, limit_text, read_suite, write_json_schema
from bench.suite.matrix import PlanningCatalog
from bench.suite.plan import Suite, plan_suite

__all__ = [
    "PlanningCatalog",
    "Suite",
    "change_recipes",
    "check_suite",
    "check_suite_in_part",
    "limit_text",
    "plan_suite",
    "read_suite",
    "write_json_schema",
]
