"""Streamlit pieces that two pages or more use. They compose; what they show comes from ``gptlab``."""
