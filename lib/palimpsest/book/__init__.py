"""room book"""
