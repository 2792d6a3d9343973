best="Air scatters blue light most."
test "$(ONE_LINER)" = "$best"
test "$(ONE_LINER --no-stream)" = "$best"
test "$(ONE_LINER --responses)" = "$best"
test "$(ONE_LINER --schema 'city str')" = '{"city": "Paris"}'
tool='def weather(city: str) -> str: return f"rain in {city}"'
test "$(ONE_LINER --functions "$tool")" = "The tool gave rain in Paris."
echo passed
